//! bobbin-all
fn main() {}
