//! Answers requests for metrics, health and the status document. Probes use a socket in the run directory; other clients use `--metrics-address`. If a server
//! fails, the agent continues to run.

use std::collections::BTreeSet;
use std::sync::Arc;

use bobbin_ipam::demand::BlockUse;
use bobbin_messages::event::agent as event;
use bobbin_observability::{Health, Metrics as MetricsPage, PortError, Server};

use crate::agent::Agent;
use crate::args::Mode;
use crate::cni::server;
use crate::metrics::{KindLabel, PoolStateLabels};

use super::status_document;

/// Starts the server for probes and the server for metrics.
pub(super) fn spawn(agent: &Arc<Agent>, metrics: MetricsPage) {
    let probed = Arc::clone(agent);
    let health = Arc::new(move || {
        update_gauges(&probed);
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
            let failed = |error: &PortError| events.node_warning(&event::METRICS_PORT_IN_USE, &error.to_string());
            server.serve_at(address, failed, stop.cancelled_owned()).await;
        });
    }
    let (path, stop) = (agent.run_dir.health_socket(), agent.stop.clone());
    tokio::spawn(async move { server::serve_probes(&path, server, stop).await });
}

/// Updates the gauges. Every health request calls this function, so the probes keep the gauges current.
fn update_gauges(agent: &Agent) {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    agent.metrics.attachments.set(count(agent.node_state.attachment_count()));
    agent.metrics.pending_assignments.set(count(agent.assignment_writer.pending()));
    for (kind, number) in agent.cluster.unreadable().counts() {
        agent.metrics.unreadable_objects.get_or_create(&KindLabel { kind }).set(count(number));
    }
    // Remove all old numbers first, because some pools may no longer have a block on this node.
    agent.metrics.addresses.clear();
    let pools: BTreeSet<String> = agent.node_state.blocks().into_iter().map(|block| block.held.pool).collect();
    agent.metrics.blocks.clear();
    for block in agent.node_state.blocks() {
        let labels = PoolStateLabels { pool: block.held.pool, state: block.state.name() };
        agent.metrics.blocks.get_or_create(&labels).inc();
    }
    for pool in pools {
        let uses = agent.node_state.pool_use(&pool, agent.cooldown(&pool));
        let sum = |of: fn(&BlockUse) -> u32| uses.iter().map(|block| i64::from(of(block))).sum();
        let free = |block: &BlockUse| block.usable.saturating_sub(block.held).saturating_sub(block.cooling);
        for (state, number) in
            [("assigned", sum(|block| block.held)), ("cooling", sum(|block| block.cooling)), ("free", sum(free))]
        {
            agent.metrics.addresses.get_or_create(&PoolStateLabels { pool: pool.clone(), state }).set(number);
        }
    }
}
