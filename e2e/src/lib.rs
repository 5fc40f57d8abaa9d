//! bobbin-e2e
