//! Compares the routes of one protocol with the wanted ones. Removes stale routes, adds missing ones, and reports
//! conflicts with other programs.

use nix::libc;

use crate::netlink::is_gone;
use crate::netlink::route::Route;
use crate::node::reconcile::pass::{Owner, Pass};

/// A route that should exist, and its owner.
#[derive(Clone, Debug)]
pub(super) struct WantedRoute {
    pub(super) route: Route,
    pub(super) owner: Owner,
}

/// Who added the existing route when the kernel answers `EEXIST` to adding a missing route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RivalRoute {
    /// Bobbin added it: an ADD ran after the pass had read the table.
    Own,
    /// Another program added it. The pass read only Bobbin's routes of this table, so it did not see that route.
    OfAnotherProgram,
}

/// Corrects the routes of a protocol. `present` holds the routes that were read; `keep` selects those that must not be
/// removed.
pub(super) fn repair_table(
    pass: &mut Pass<'_>,
    present: &[Route],
    protocol: u8,
    wanted: &[WantedRoute],
    keep: impl Fn(&Route) -> bool,
    rival: RivalRoute,
) {
    for stale in present.iter().filter(|seen| seen.protocol == protocol && !keep(seen)) {
        if !wanted.iter().any(|wanted| wanted.route.has_same_key(stale)) {
            pass.remove(&Owner::node(), format!("removed the stale route {stale}"), stale.delete());
        }
    }
    for WantedRoute { route, owner } in wanted {
        let candidates: Vec<&Route> = present.iter().filter(|seen| seen.has_same_key(route)).collect();
        let foreign = candidates.iter().find(|seen| seen.protocol != protocol);
        let own = candidates.iter().find(|seen| seen.protocol == protocol);
        match (own, foreign) {
            // A route over a skipped link stays, because an operation may just have moved the address to that link.
            (Some(own), _) if agrees(own, route) || keep(own) => {}
            (Some(own), _) => {
                let removed = pass.send(own.delete());
                match removed {
                    Err(error) if !is_gone(&error) => {
                        pass.note(owner, format!("removed the wrong route {own}"), Err(error));
                    }
                    _ => add(pass, owner, format!("replaced the wrong route {own} by {route}"), route, rival),
                }
            }
            (None, Some(foreign)) => {
                let program = format!("another program (protocol {})", foreign.protocol);
                pass.not_repairable(owner, missing(route, &program));
            }
            (None, None) => add(pass, owner, format!("added the missing route {route}"), route, rival),
        }
    }
}

fn add(pass: &mut Pass<'_>, owner: &Owner, what: String, route: &Route, rival: RivalRoute) {
    match (pass.send(route.add()), rival) {
        (Err(error), RivalRoute::Own) if error.errno() == Some(libc::EEXIST) => {}
        (Err(error), RivalRoute::OfAnotherProgram) if error.errno() == Some(libc::EEXIST) => {
            pass.not_repairable(owner, missing(route, "another program"));
        }
        (result, _) => pass.note(owner, what, result),
    }
}

fn missing(route: &Route, program: &str) -> String {
    format!(
        "route {route} is missing, because {program} has a route with the same table, prefix and metric; remove that route"
    )
}

/// Whether an existing route is the wanted one. For a route with only a gateway, the kernel fills in the link.
fn agrees(seen: &Route, wanted: &Route) -> bool {
    let link = wanted.link.is_none() || wanted.link == seen.link;
    link && seen.via == wanted.via && seen.source == wanted.source && seen.blackhole == wanted.blackhole
}
