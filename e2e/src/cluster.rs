//! A whole test cluster: control plane, fabric and nodes. The demo and the tests use the methods of [`Cluster`].
//!
//! When this process drops the cluster or is killed, a clean-up process removes everything that belongs to the cluster
//! ([`crate::cluster::run`]).

mod bobbin;
mod clean_up;
mod cni_call;
mod commands;
mod dns;
mod invariants;
mod membership;
pub mod node;
mod objects;
mod options;
pub mod pod;
mod reference;
mod routes;
pub mod run;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};

pub use bobbin::{CHART, NAMESPACE};
pub use cni_call::{CniAnswer, CniCall};
pub use membership::not_ready;
pub use objects::condition_of;
pub use objects::pools::Pool;
pub use objects::workload::{CONTAINER, Workload, template as pod_template};
pub use options::{ClusterOptions, Network};

use crate::api_proxy::ApiProxy;
use crate::cluster::node::{Node, NodeConfig};
use crate::cluster::run::Run;
use crate::control_plane::{self, CONTROLLER_MANAGER, ControlPlane, Process, SCHEDULER};
use crate::network::{Fabric, FabricAddresses, Namespace};
use routes::Routes;
use xtask::artifacts::Artifacts;
use xtask::image;
use xtask::programs::Programs;

/// The token with which kube-proxy calls the API server.
const KUBE_PROXY: &str = "kube-proxy";

/// The port of the proxy between Bobbin and the API server.
const API_PROXY_PORT: u16 = 6444;

/// A running cluster.
pub struct Cluster {
    // Rust drops these fields in the order of their declaration. So the programs that call a server come before the
    // server. The run comes last, because its end removes everything.
    routes: Routes,
    nodes: BTreeMap<String, Node>,
    controllers: Vec<Process>,
    api_proxy: Option<ApiProxy>,
    control_plane: ControlPlane,
    client: kube::Client,
    programs: Programs,
    namespace: Namespace,
    fabric: Arc<Fabric>,
    config: NodeConfig,
    options: ClusterOptions,
    run: Run,
}

impl Cluster {
    /// Starts a cluster. With [`Network::Bobbin`], pods have no network until [`Cluster::install`] is called.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let run = Run::begin()?;
        let programs = Programs::find()?;
        let directory =
            programs.path("kubelet")?.parent().context("the path of the kubelet names no directory")?.to_owned();
        let fabric = Arc::new(Fabric::make()?);
        let namespace = Namespace::make()?;
        let place = FabricAddresses::control_plane();
        fabric.plug("control-plane", place, &namespace)?;
        let images = make_images(&run, &programs, options.network)?;

        let mut head = control_plane::ControlPlaneOptions {
            netns: Some(namespace.path()),
            address: IpAddr::V4(place.ipv4),
            other_addresses: vec![IpAddr::V6(place.ipv6)],
            fsync: options.fsync,
            audit: options.audit,
            // The control plane runs no kube-proxy, so the API server can't reach a Service address. With this
            // argument, the API server calls the endpoints of a webhook's Service directly.
            apiserver_arguments: vec!["--enable-aggregator-routing=true".to_owned()],
            ..control_plane::ControlPlaneOptions::default()
        };
        head.add_token(KUBE_PROXY, "system:kube-proxy", &[]);
        let control_plane = ControlPlane::start(head).await?;
        let client = control_plane.client().await?;
        let controllers = start_controllers(&run, &programs, &control_plane, &namespace)?;
        let config = NodeConfig {
            kubelet: PathBuf::new(),
            kube_proxy: control_plane.kubeconfig_inside(KUBE_PROXY)?,
            ca: control_plane.certificates().file("ca.crt"),
            images,
            programs: directory,
        };
        let routes = Routes::keep(client.clone(), namespace.clone());
        let mut this = Self {
            routes,
            nodes: BTreeMap::new(),
            controllers,
            api_proxy: None,
            control_plane,
            client,
            programs,
            namespace,
            fabric,
            config,
            options,
            run,
        };
        let names: Vec<String> = (1..=this.options.nodes).map(|number| format!("n{number}")).collect();
        this.add_nodes(&names).await?;
        Ok(this)
    }

    /// The run that owns the cluster's files and processes.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// The cluster's control plane, with the audit log.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The cluster's control plane, for tests that stop and start it.
    pub fn control_plane_mut(&mut self) -> &mut ControlPlane {
        &mut self.control_plane
    }

    /// The fabric that connects the nodes.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// The control plane's network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A client with the administrator's permissions.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The paths of the programs that the cluster runs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Fails if the controller manager or the scheduler has ended. The error contains the end of that program's log.
    pub fn controllers_must_be_running(&mut self) -> Result<()> {
        self.controllers.iter_mut().try_for_each(Process::must_be_running)
    }

    /// Starts the proxy between Bobbin and the API server if it is not running. Bobbin uses the proxy after the next
    /// [`Cluster::install`].
    pub async fn start_api_proxy(&mut self) -> Result<()> {
        if self.api_proxy.is_none() {
            let address = SocketAddr::new(IpAddr::V4(FabricAddresses::control_plane().ipv4), API_PROXY_PORT);
            self.api_proxy = Some(ApiProxy::start_in(&self.control_plane, &self.namespace, address).await?);
        }
        Ok(())
    }

    /// Returns the proxy between Bobbin and the API server. Fails if the proxy is not running.
    pub fn api(&self) -> Result<&ApiProxy> {
        self.api_proxy.as_ref().context("the cluster runs without an API proxy")
    }

    /// The control plane's routes to pods.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }
}

/// Creates the image archives that every node loads.
fn make_images(run: &Run, programs: &Programs, network: Network) -> Result<Vec<PathBuf>> {
    let directory = run.make_directory("images")?;
    let mut images = vec![image::test_images(programs, &directory)?];
    if network.may_have_bobbin() {
        images.push(image::bobbin(&Artifacts::find()?, &directory, image::BOBBIN)?);
    }
    Ok(images)
}

fn start_controllers(
    run: &Run,
    programs: &Programs,
    head: &ControlPlane,
    namespace: &Namespace,
) -> Result<Vec<Process>> {
    let start = |name: &str, token: &str, more: &[String]| -> Result<Process> {
        let mut arguments = vec![
            format!("--kubeconfig={}", head.kubeconfig_inside(token)?.display()),
            "--leader-elect=false".to_owned(),
            "--kube-api-qps=500".to_owned(),
            "--kube-api-burst=1000".to_owned(),
        ];
        arguments.extend_from_slice(more);
        let log = run.directory().join(format!("{name}.log"));
        Process::start(Path::new(&programs.path(name)?), Some(&namespace.path()), &log, arguments)
    };
    let pki = head.certificates();
    let manager = [
        format!("--service-account-private-key-file={}", pki.file("service-account.key")),
        format!("--root-ca-file={}", pki.file("ca.crt")),
        "--use-service-account-credentials=true".to_owned(),
        "--allocate-node-cidrs=false".to_owned(),
        "--concurrent-gc-syncs=5".to_owned(),
        // Check the state of the nodes more often than by default. A rolling update then takes seconds instead of tens
        // of seconds.
        "--node-monitor-period=2s".to_owned(),
    ];
    Ok(vec![start("kube-controller-manager", CONTROLLER_MANAGER, &manager)?, start("kube-scheduler", SCHEDULER, &[])?])
}
