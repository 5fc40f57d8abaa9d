//! Linker options that keep the static shim below 1 MiB: cargo runs this before it builds the executable.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shrink.ld");
    // The options are only for the installed executable: it is static and of the profile `shim`, which optimizes for size and
    // aborts on a panic. Cargo does not pass the panic strategy to build scripts, and a development build unwinds.
    let is = |name: &str, word: &str| env::var(name).is_ok_and(|value| value.split(',').any(|part| part == word));
    if !is("CARGO_CFG_TARGET_FEATURE", "crt-static") || !is("OPT_LEVEL", "s") {
        return;
    }
    let Ok(folder) = env::var("CARGO_MANIFEST_DIR") else { return };
    let script = Path::new(&folder).join("shrink.ld");
    for option in
        [&format!("-T,{}", script.display()), "--no-eh-frame-hdr", "-z,pack-relative-relocs", "--build-id=none"]
    {
        println!("cargo::rustc-link-arg-bins=-Wl,{option}");
    }
}
