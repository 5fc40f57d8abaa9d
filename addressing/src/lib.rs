//! bobbin-addressing
