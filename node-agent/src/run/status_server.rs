//! Answers requests for metrics, health and the status document. Probes use a socket in the run directory; other clients use `--metrics-address`. If a server
//! fails, the agent continues to run.

use std::sync::Arc;

use bobbin_observability::{Health, Metrics as MetricsPage, PortError, Server};

use crate::agent::Agent;
use crate::args::Mode;
use crate::blocks::demand::DemandController;
use crate::cni::server;
use crate::metrics::gauges;

use super::status_document;

/// Starts the server for probes and the server for metrics.
pub(super) fn spawn(agent: &Arc<Agent>, demand: DemandController, metrics: MetricsPage) {
    let measured = Arc::clone(agent);
    metrics.on_read(move || gauges::refresh(&measured, &demand));
    let probed = Arc::clone(agent);
    let health = Arc::new(move || {
        let ready = probed.args.mode == Mode::Remove || probed.run_dir.was_ready();
        let missing =
            || "the agent has not read its Node and its blocks from the API server since the node booted".to_owned();
        Health::of(&probed.watchdog, ready.then_some(()).ok_or_else(missing))
    });
    let described = Arc::clone(agent);
    let document = Arc::new(move || status_document::json(&described));
    let server = Server::new(Arc::new(metrics), health).with_json(bobbin_agent_status::PATH, document);
    if let Some(address) = agent.args.metrics_address {
        let (events, stop, server) = (agent.events.clone(), agent.stop.clone(), server.clone());
        tokio::spawn(async move {
            let failed = |error: &PortError| events.node_warning("MetricsPortInUse", &error.to_string());
            server.serve_at(address, failed, stop.cancelled_owned()).await;
        });
    }
    let (path, stop) = (agent.run_dir.health_socket(), agent.stop.clone());
    tokio::spawn(async move { server::serve_probes(&path, server, stop).await });
}
