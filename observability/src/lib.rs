//! bobbin-observability
