//! bobbin-shim
fn main() {}
