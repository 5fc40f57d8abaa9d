//! Sets linker options that keep the static CNI plugin below 1 MiB. Cargo runs this script before it builds the executable.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shrink.ld");
    // The options are only for the installed executable, because they break unwinding on a panic. Cargo does not tell this
    // script the panic strategy of the profile. So the script looks for what only the installed executable has: static
    // linking and optimization for size.
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
