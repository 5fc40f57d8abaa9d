//! Builds what goes into Bobbin's image and prints where it is. `make product` calls it, and tests before they measure time.

fn main() -> anyhow::Result<()> {
    let product = bobbin_e2e::product::Product::find()?;
    println!("{}\n{}", product.all().display(), product.shim().display());
    Ok(())
}
