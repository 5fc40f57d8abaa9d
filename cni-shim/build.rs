//! Sets linker options that keep the static CNI plugin below 1 MiB. Cargo runs this script before it builds the executable.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shrink.ld");
    // Some options break unwinding, so only an executable that aborts on a panic may have them. Cargo does not tell the
    // script whether a panic aborts. So the script checks for static linking and optimization for size: only the
    // installed executable is built with both, and it aborts on a panic.
    let is = |name: &str, word: &str| env::var(name).is_ok_and(|value| value.split(',').any(|part| part == word));
    if !is("CARGO_CFG_TARGET_FEATURE", "crt-static") || !is("OPT_LEVEL", "s") {
        return;
    }
    println!("cargo::rustc-link-arg-bins=-Wl,--build-id=none");
    // The options below are only for x86_64. On ARM, the start-up code of the C library needs the unwind tables, and
    // Debian 12's linker can't pack relocations.
    if !is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        return;
    }
    let Ok(folder) = env::var("CARGO_MANIFEST_DIR") else { return };
    let script = Path::new(&folder).join("shrink.ld");
    for option in [&format!("-T,{}", script.display()), "--no-eh-frame-hdr", "-z,pack-relative-relocs"] {
        println!("cargo::rustc-link-arg-bins=-Wl,{option}");
    }
}
