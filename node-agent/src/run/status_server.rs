//! Answers requests for metrics, health and the status document. Probes use a socket in the run directory; other clients use
//! `--metrics-address`. The agent keeps running if a server fails.

use std::sync::Arc;

use bobbin_messages::event::agent as event;
use bobbin_observability::{Health, Metrics as MetricsPage, PortError, Server};

use crate::agent::Agent;
use crate::args::Mode;
use crate::blocks::demand::DemandController;
use crate::cni::server;
use crate::host::install::CONFLIST;
use crate::metrics::gauges;

use super::status_document;

/// Starts the server for probes and the server for metrics.
pub(super) fn spawn(agent: &Arc<Agent>, demand: DemandController, metrics: MetricsPage) {
    let measured = Arc::clone(agent);
    metrics.on_read(move || gauges::refresh(&measured, &demand));
    let probed = Arc::clone(agent);
    let health = Arc::new(move || {
        let args = &probed.args;
        let installed = !args.install || args.cni_conf_dir.join(CONFLIST).exists();
        Health::of(&probed.watchdog, readiness(args.mode, probed.run_dir.was_ready(), installed))
    });
    let described = Arc::clone(agent);
    let document = Arc::new(move || status_document::json(&described));
    let server = Server::new(Arc::new(metrics), health).with_json(bobbin_agent_status::PATH, document);
    if let Some(address) = agent.args.metrics_address {
        let (events, stop, server) = (agent.events.clone(), agent.stop.clone(), server.clone());
        tokio::spawn(async move {
            let failed = |error: &PortError| events.on_node(&event::METRICS_PORT_IN_USE, &error.to_string());
            server.serve_at(address, failed, stop.cancelled_owned()).await;
        });
    }
    let (path, stop) = (agent.run_dir.health_socket(), agent.stop.clone());
    tokio::spawn(async move { server::serve_probes(&path, server, stop).await });
}

/// Whether the agent is ready. In mode `run`, the CNI configuration must be installed: without it, new pods would get their network from
/// another plugin.
fn readiness(mode: Mode, was_ready: bool, installed: bool) -> Result<(), String> {
    match (mode, was_ready, installed) {
        (Mode::Remove, ..) | (Mode::Run, true, true) => Ok(()),
        (Mode::Run, false, _) => {
            Err("the agent has not read its Node and its blocks from the API server since the node booted".to_owned())
        }
        (Mode::Run, true, false) => Err(format!(
            "the CNI configuration {CONFLIST} is not installed, so new pods do not get their network from Bobbin. The agent installs the file as soon as it can. If the file is still missing later, the agent's log gives the reason"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_ready_only_with_its_cni_configuration_unless_it_uninstalls() {
        assert_eq!(readiness(Mode::Run, true, true), Ok(()));
        assert_eq!(readiness(Mode::Remove, false, false), Ok(()));
        assert!(readiness(Mode::Run, false, true).is_err_and(|why| why.contains("has not read its Node")));
        assert!(readiness(Mode::Run, true, false).is_err_and(|why| why.contains(CONFLIST)));
    }
}
