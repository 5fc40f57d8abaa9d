//! The schema of the three kinds against a real kube-apiserver: each rule accepted and refused.

use anyhow::Result;
use bobbin_e2e::control_plane::{ControlPlane, Options};

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let t = std::time::Instant::now();
        let mut plane = ControlPlane::start(Options {
            audit: true,
            netns: std::env::var_os("NS").map(Into::into),
            ..Options::default()
        })
        .await?;
        println!("{:?} {}", t.elapsed(), plane.url());
        let client = plane.client().await?;
        println!("{:?}", client.apiserver_version().await?);
        let n1 = plane.client_for("node-n1").await?;
        println!("{:?}", n1.list_core_api_versions().await?);
        println!("{}", plane.audit().entries()?.len());
        let t = std::time::Instant::now();
        plane.stop_apiserver();
        println!("{:?}", client.apiserver_version().await.is_err());
        plane.start_apiserver().await?;
        println!("{:?}", t.elapsed());
        println!("{:?}", client.apiserver_version().await.is_ok());
        Ok(())
    })
}
