//! bobbin-kernel
