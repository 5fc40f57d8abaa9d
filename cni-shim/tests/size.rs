//! Builds the CNI plugin with the profile of the installed executable, and checks that it is static and at most 1 MiB.

use std::path::PathBuf;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

#[test]
fn the_installed_shim_is_static_and_at_most_one_mebibyte() {
    let target_dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("shim");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--profile", "shim", "-p", "bobbin-shim", "--target", TARGET])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let bytes = std::fs::read(target_dir.join(TARGET).join("shim/bobbin")).unwrap();
    assert!(bytes.len() <= 1 << 20, "the shim has {} bytes", bytes.len());
    let types = program_header_types(&bytes);
    assert!(types.contains(&1), "the shim has no loadable segment; its program header types: {types:?}");
    // A program header of type PT_INTERP (3) has the dynamic linker's path. A static executable has no such header.
    assert!(!types.contains(&3), "the shim is not static; its program header types: {types:?}");
}

/// The `p_type` of each program header of a 64-bit little-endian ELF file.
fn program_header_types(elf: &[u8]) -> Vec<u32> {
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01");
    let number = |at: usize, length: usize| {
        elf[at..at + length].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let (start, size, count) = (number(0x20, 8) as usize, number(0x36, 2) as usize, number(0x38, 2) as usize);
    (0..count).map(|place| number(start + place * size, 4) as u32).collect()
}
