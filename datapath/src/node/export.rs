//! The routes of a block: an export route for routing daemons, and a blackhole route. The pods' routes take precedence
//! over the blackhole route.
//!
//! The agent exports a block before it assigns an address of the block, and withdraws the block before releasing it.

use bobbin_ipam::BlockRange;
use ipnet::IpNet;
use nix::libc;

use crate::netlink::link::LOOPBACK;
use crate::netlink::route::{self, Route};
use crate::netlink::{KernelError, gone_is_success};
use crate::settings::Settings;
use crate::state::State;

/// The CIDRs of a block, one for each address family.
fn networks(block: &BlockRange) -> impl Iterator<Item = IpNet> + use<> {
    block.ipv4.map(IpNet::V4).into_iter().chain(block.ipv6.map(IpNet::V6))
}

/// The routes of a block. The blackhole route is added first, so that packets to an exported block never loop.
pub(crate) fn routes(settings: &Settings, block: &BlockRange) -> Vec<Route> {
    let blackholes = networks(block).map(|net| Route::blackhole(settings.pod_table, settings.protocol, net));
    let exports =
        networks(block).map(|net| Route::over(settings.export_table, settings.protocol, net, Some(LOOPBACK), None));
    blackholes.chain(exports).collect()
}

/// Adds the routes of a block. Idempotent. Fails if another program has a route with the same table, prefix and metric.
pub(crate) fn export(state: &State, block: BlockRange) -> Result<(), KernelError> {
    let routes = routes(&state.settings, &block);
    let answers = state.handle.send(routes.iter().map(Route::add).collect())?;
    for (answer, wanted) in answers.into_iter().zip(&routes) {
        match answer {
            Err(error) if error.errno() == Some(libc::EEXIST) => {
                let found = state.with_netlink(|netlink| route::list(netlink, wanted.table))?;
                let found = found.iter().find(|seen| seen.has_same_key(wanted));
                let is_own = |seen: &Route| seen.protocol == wanted.protocol && seen.blackhole == wanted.blackhole;
                if !found.is_some_and(is_own) {
                    return Err(KernelError::Conflict(format!(
                        "Bobbin could not export block {}: in table {} another program (protocol {}) has a route to this block; \
                         remove that route, or configure another table for Bobbin",
                        wanted.to,
                        wanted.table,
                        found.map_or(0, |seen| seen.protocol)
                    )));
                }
            }
            answer => answer?,
        }
    }
    // If a recorded block lacks a route, a reconcile pass adds the route and reports a repair. So record the block only
    // after a complete export. If the desired state lacks the block, a pass removes the routes of a partial export.
    state.programmed.lock().put_block(block);
    Ok(())
}

/// Removes the routes of a block, the exported route first. Idempotent.
pub(crate) fn withdraw(state: &State, block: &BlockRange) -> Result<(), KernelError> {
    state.programmed.lock().remove_block(block);
    let routes = routes(&state.settings, block);
    let answers = state.handle.send(routes.iter().rev().map(Route::delete).collect())?;
    answers.into_iter().try_for_each(gone_is_success)
}
