//! bobbin-cni-wire
