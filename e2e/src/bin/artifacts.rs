//! Builds what goes into Bobbin's image and prints where it is (`make product`; tests call it before they measure time). With the path of
//! a file as its argument it packs the image there (`make image`): a docker-archive, for `skopeo copy`, `docker load` or `ctr images import`.

use std::path::PathBuf;

use anyhow::Context;
use bobbin_e2e::{artifacts::Artifacts, image};

/// The name inside the archive: the chart's defaults for `image.repository` and `image.tag`.
const NAME: &str = concat!("bobbin:", env!("CARGO_PKG_VERSION"));

fn main() -> anyhow::Result<()> {
    let product = Artifacts::find()?;
    println!("{}\n{}", product.all().display(), product.shim().display());
    if let Some(path) = std::env::args_os().nth(1).map(PathBuf::from) {
        let directory = tempfile::tempdir()?;
        let packed = image::product(product.all(), product.shim(), directory.path(), NAME)?;
        std::fs::copy(&packed, &path).with_context(|| format!("the image can't be written to {}", path.display()))?;
        println!("{} ({NAME})", path.display());
    }
    Ok(())
}
