//! Records the objects and the run directory of this version in `e2e/recorded`. Run this program as root once per release:
//! `cargo run -p bobbin-e2e --bin record-version`.

fn main() -> anyhow::Result<()> {
    bobbin_e2e::single_node::own_mounts()?;
    let directory = tokio::runtime::Runtime::new()?.block_on(bobbin_e2e::recorded_version::record())?;
    println!("the recording of this version is in {}", directory.display());
    Ok(())
}
