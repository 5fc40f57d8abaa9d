//! The options of a control plane. This module also turns the options into the API server's arguments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::{Certificates, first_of};

/// The administrator's token.
pub const ADMIN: &str = "admin";
/// The controller manager's token.
pub const CONTROLLER_MANAGER: &str = "controller-manager";
/// The scheduler's token.
pub const SCHEDULER: &str = "scheduler";
/// The number of nodes that have a token: `n1`, `n2` and so on.
const NODES: usize = 40;

/// The DNS names in the API server's certificate.
pub(super) const NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// The token with which a node's kubelet calls the API server.
pub fn node_token(node: &str) -> String {
    format!("node-{node}")
}

/// A user of the API server with a static token.
#[derive(Clone, Debug)]
pub struct Token {
    /// The token of the user. Tests have no secrets, so the token is a plain word.
    pub token: String,
    /// The user's name.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

/// The options of the control plane that a test sets.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    /// The network namespace of etcd and the API server. `None` means the namespace of this process.
    pub netns: Option<PathBuf>,
    /// The address that the API server advertises. If this is a loopback address, the API server listens only on this
    /// address. Otherwise, the API server listens on all addresses of its namespace.
    pub address: IpAddr,
    /// Further addresses in the API server's certificate.
    pub other_addresses: Vec<IpAddr>,
    /// The API server's port. `None` means 6443 if `netns` is set, and otherwise a free port.
    pub port: Option<u16>,
    /// Whether etcd waits until each write is on the disk, as in production. Only benchmarks need this.
    pub fsync: bool,
    /// Whether the API server writes the audit log ([`super::ControlPlane::audit`]).
    pub audit: bool,
    /// The users with a token: administrator, controller manager, scheduler, the nodes n1 to n40, and added users.
    pub tokens: Vec<Token>,
    /// The ranges of Service addresses.
    pub service_ranges: String,
    /// Additional arguments of the API server.
    pub apiserver_arguments: Vec<String>,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        let mut options = Self {
            netns: None,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            other_addresses: Vec::new(),
            port: None,
            fsync: false,
            audit: false,
            tokens: Vec::new(),
            service_ranges: "10.96.0.0/16,fd00:96::/112".to_owned(),
            apiserver_arguments: Vec::new(),
        };
        options.add_token(ADMIN, "admin", &["system:masters"]);
        options.add_token(CONTROLLER_MANAGER, "system:kube-controller-manager", &[]);
        options.add_token(SCHEDULER, "system:kube-scheduler", &[]);
        for node in (1..=NODES).map(|number| format!("n{number}")) {
            options.add_node_token(&node);
        }
        options
    }
}

impl ControlPlaneOptions {
    /// Adds a user with a static token.
    pub fn add_token(&mut self, token: &str, user: &str, groups: &[&str]) -> &mut Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        self.tokens.push(Token { token: token.to_owned(), user: user.to_owned(), groups });
        self
    }

    /// Adds the kubelet of a node, with the token [`node_token`].
    pub fn add_node_token(&mut self, node: &str) -> &mut Self {
        self.add_token(&node_token(node), &format!("system:node:{node}"), &["system:nodes"])
    }

    /// The content of the token file, one user per line: token, user, UID and groups.
    pub(super) fn token_file(&self) -> String {
        let line =
            |token: &Token| format!("{},{},{},\"{}\"\n", token.token, token.user, token.user, token.groups.join(","));
        self.tokens.iter().map(line).collect()
    }

    /// All addresses in the API server's certificate.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let services = self.service_ranges.split(',').filter_map(first_of);
        let mut all: Vec<IpAddr> =
            loopback.into_iter().chain([self.address]).chain(services).chain(self.other_addresses.clone()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn apiserver_arguments(
        &self,
        directory: &Path,
        pki: &Certificates,
        inside: SocketAddr,
        etcd: &str,
    ) -> Vec<String> {
        let in_directory = |name: &str| directory.join(name).display().to_string();
        let bind = match (self.address.is_loopback(), self.address) {
            (true, address) => address,
            (false, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (false, IpAddr::V6(_)) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let mut arguments = vec![
            format!("--etcd-servers={etcd}"),
            format!("--bind-address={bind}"),
            format!("--advertise-address={}", self.address),
            format!("--secure-port={}", inside.port()),
            format!("--service-cluster-ip-range={}", self.service_ranges),
            format!("--token-auth-file={}", in_directory("tokens.csv")),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
            format!("--client-ca-file={}", pki.file("ca.crt")),
            format!("--tls-cert-file={}", pki.file("apiserver.crt")),
            format!("--tls-private-key-file={}", pki.file("apiserver.key")),
            format!("--kubelet-client-certificate={}", pki.file("kubelet-client.crt")),
            format!("--kubelet-client-key={}", pki.file("kubelet-client.key")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            format!("--service-account-key-file={}", pki.file("service-account.pub")),
            format!("--service-account-signing-key-file={}", pki.file("service-account.key")),
        ];
        if self.address.is_loopback() {
            // Publish no endpoint of the Service `kubernetes`, because an endpoint can't have a loopback address.
            arguments.push("--endpoint-reconciler-type=none".to_owned());
        }
        if self.audit {
            arguments.push(format!("--audit-policy-file={}", in_directory("audit-policy.yaml")));
            arguments.push(format!("--audit-log-path={}", in_directory("audit.log")));
            arguments.push("--audit-log-maxsize=1024".to_owned());
        }
        arguments.extend(self.apiserver_arguments.iter().cloned());
        arguments
    }
}
