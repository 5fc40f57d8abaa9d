//! The cluster that all tests of this suite share: two nodes, the router, and a host outside of the cluster.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bobbin_crds::AddressPool;
use bobbin_e2e::cluster::pod::{FAMILIES, Family, PORT, Pod, who_answers};
use bobbin_e2e::cluster::{Cluster, ClusterOptions, NAMESPACE, Pool, Workload};
use bobbin_e2e::network::Namespace;
use bobbin_e2e::suite::{Fixture, Suite};
use serde_json::json;
use xtask::image;

use crate::router::{NODE_AS, Neighbor, ROUTER_AS, Router};

/// How long one test may take.
const TEST_TIMEOUT: Duration = Duration::from_mins(3);
/// How long the router may take until it has learned or forgotten routes. This time includes restarts of BGP sessions.
pub const LEARN_TIMEOUT: Duration = Duration::from_secs(40);
/// The chart's values for these tests. The times are short, so that the tests need not wait long.
const VALUES: [&str; 5] = [
    "network.routing=none",
    "agent.blockIdle=5s",
    "operator.nodeGracePeriod=30s",
    "agent.staleCheckInterval=4s",
    "operator.statusInterval=1s",
];
/// How long the router keeps the routes of a daemon that is gone, in seconds.
pub const RESTART_TIME: u64 = 20;
/// The password of the sessions with n2.
const PASSWORD: &str = "correct horse";
/// The nodes as the chart's values configure them: n1 with the defaults, and n2 with BFD and a password.
pub const CHART_NODES: [Neighbor; 2] =
    [Neighbor { node: "n1", password: None, bfd: false }, Neighbor { node: "n2", password: Some(PASSWORD), bfd: true }];
/// The addresses of the host outside of the cluster.
const OUTSIDE: [&str; 2] = ["10.200.0.10", "fd00:200::10"];

/// The shared cluster.
pub struct Routing {
    /// The router. This field comes before `cluster`, so that the router is dropped first: it runs in a namespace of
    /// the cluster.
    pub router: Router,
    /// The host outside of the cluster. It answers each request on port 8080 with the address of the client.
    pub outside: Namespace,
    /// The cluster.
    pub cluster: Cluster,
}

impl Fixture for Routing {
    async fn after_test(&mut self) -> Result<()> {
        self.cluster.after_test().await
    }

    fn describe(&self) -> String {
        let sessions = self.router.ask("show protocols all").unwrap_or_default();
        format!("{}\nThe router's sessions:\n{sessions}", self.cluster.describe())
    }
}

/// Creates the suite whose tests share one cluster.
pub fn suite() -> Result<Suite<Routing>> {
    Ok(Suite::new(start)?.with_timeout(TEST_TIMEOUT))
}

async fn start() -> Result<Routing> {
    let cluster = Cluster::start(ClusterOptions { nodes: 2, audit: false, ..ClusterOptions::default() }).await?;
    let archive = image::bird(&cluster.run().make_directory("images")?)?;
    for node in cluster.nodes() {
        node.exec([
            "ctr".as_ref(),
            "-n".as_ref(),
            "k8s.io".as_ref(),
            "images".as_ref(),
            "import".as_ref(),
            archive.as_os_str(),
        ])?;
    }
    let router = Router::start(&cluster)?;
    let outside = outside(cluster.fabric().namespace())?;
    cluster.make_namespace(NAMESPACE, &[]).await?;
    cluster
        .apply(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": NAMESPACE, "name": "bgp"},
            "stringData": {"key": PASSWORD},
        }))
        .await?;
    let this = Routing { router, outside, cluster };
    this.with_chart().await?;
    this.cluster.apply(default_pool()).await?;
    this.cluster.await_condition(default_pool(), "Ready", "True", Duration::from_secs(30)).await?;
    Ok(this)
}

fn default_pool() -> AddressPool {
    Pool::named("default").subnet("10.64.0.0/20", "fd00:64::/116").build()
}

/// Connects a host to the router and lets it answer requests.
fn outside(router: &Namespace) -> Result<Namespace> {
    let host = Namespace::make()?;
    router.ip(&format!(
        "link add outside type veth peer name eth0 netns {}\nlink set outside up\n\
         addr add 10.200.0.1/24 dev outside\naddr add fd00:200::1/64 dev outside nodad\n",
        host.path().display()
    ))?;
    let [ipv4, ipv6] = OUTSIDE;
    host.ip(&format!(
        "addr add {ipv4}/24 dev eth0\naddr add {ipv6}/64 dev eth0 nodad\nlink set eth0 up\n\
         route add default via 10.200.0.1\nroute add default via fd00:200::1\n"
    ))?;
    let listener = host.run(|| TcpListener::bind(("::", PORT)))??;
    std::thread::spawn(move || {
        // A client that breaks its connection gets no answer.
        listener.incoming().flatten().for_each(|stream| drop(answer(stream)));
    });
    Ok(host)
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let _ = stream.read(&mut [0; 512])?;
    let client = stream.peer_addr()?.ip().to_canonical();
    Ok(write!(stream, "HTTP/1.0 200 OK\r\n\r\n{client}")?)
}

impl Routing {
    /// Installs the chart with BIRD on both nodes, and configures the router for sessions with this BIRD.
    pub async fn with_chart(&self) -> Result<()> {
        self.router.configure(&CHART_NODES).await?;
        let values = chart_values();
        let values: Vec<&str> = VALUES.into_iter().chain(values.iter().map(String::as_str)).collect();
        self.cluster.install(&values).await
    }

    /// Removes the chart's BIRD, and configures the router for sessions with another daemon on both nodes.
    pub async fn without_chart(&self, bfd: bool) -> Result<()> {
        self.cluster.install(&VALUES).await?;
        self.cluster
            .await_no_pods_labelled(NAMESPACE, "app.kubernetes.io/component=bird", Duration::from_secs(40))
            .await?;
        self.router.configure(&CHART_NODES.map(|node| Neighbor { password: None, bfd, ..node })).await
    }

    /// Creates a pod on each node.
    pub async fn pod_on_each_node(&self, namespace: &str) -> Result<Vec<Pod>> {
        self.cluster.make_namespace(namespace, &[]).await?;
        for node in self.cluster.nodes() {
            self.cluster.create_pod(&Workload::pod(namespace, &format!("on-{}", node.name())).on(node.name())).await?;
        }
        let count = self.cluster.nodes().count();
        self.cluster.await_ready_pods(namespace, "", "", count, Duration::from_mins(1)).await
    }

    /// Checks that each pod reaches every other pod, and that each pod and the host outside reach each other. Also
    /// checks that the host outside sees the pod's own address.
    pub fn all_reach_each_other(&self, pods: &[Pod], families: &[Family]) -> Result<()> {
        for family in families {
            let outside: IpAddr = OUTSIDE[FAMILIES.iter().position(|known| known == family).unwrap_or(0)].parse()?;
            for pod in pods {
                for other in pods.iter().filter(|other| other.uid != pod.uid) {
                    pod.can_reach(other, *family)?;
                }
                let own = pod.address(*family)?;
                let answer = self.outside.run(move || who_answers(SocketAddr::new(own, PORT)))?;
                let answer = answer.with_context(|| format!("the host outside does not reach pod {}", pod.name))?;
                ensure!(answer == pod.name, "the host outside asked pod {}, and {answer} answered", pod.name);
                let seen = pod.netns().run(move || who_answers(SocketAddr::new(outside, PORT)))?;
                let seen = seen.with_context(|| format!("pod {} does not reach the host outside", pod.name))?;
                ensure!(seen == own.to_string(), "the host outside saw pod {own} with the address {seen}");
            }
        }
        Ok(())
    }
}

/// The values that let the chart run BIRD: one group for each node.
fn chart_values() -> Vec<String> {
    let (repository, tag) = image::BIRD.rsplit_once(':').unwrap_or((image::BIRD, ""));
    let mut values = vec![
        "routing.daemon=bird".to_owned(),
        format!("routing.image.repository={repository}"),
        format!("routing.image.tag={tag}"),
        "routing.image.pullPolicy=Never".to_owned(),
        format!("routing.gracefulRestartSeconds={RESTART_TIME}"),
    ];
    for (number, node) in CHART_NODES.iter().enumerate() {
        let group = format!("routing.peers[{number}]");
        values.push(format!("{group}.name=group-{}", node.node));
        values.push(format!("{group}.nodeSelector.kubernetes\\.io/hostname={}", node.node));
        values.push(format!("{group}.localAS={NODE_AS}"));
        for (place, address) in ["10.100.0.1", "fd00:100::1"].iter().enumerate() {
            values.push(format!("{group}.routers[{place}].address={address}"));
            values.push(format!("{group}.routers[{place}].as={ROUTER_AS}"));
        }
        values.push(format!("{group}.bfd={}", node.bfd));
        if node.password.is_some() {
            values.push(format!("{group}.passwordSecret.name=bgp"));
            values.push(format!("{group}.passwordSecret.key=key"));
        }
    }
    values
}
