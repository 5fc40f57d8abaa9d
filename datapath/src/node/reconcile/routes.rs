//! Compares the routes of a protocol with the wanted ones: removes stale ones, adds missing ones, names foreign ones.

use nix::libc;

use crate::netlink::is_gone;
use crate::netlink::route::Route;
use crate::node::reconcile::pass::{Owner, Pass};

/// A wanted route, and what it belongs to.
#[derive(Clone, Debug)]
pub(super) struct WantedRoute {
    pub(super) route: Route,
    pub(super) owner: Owner,
}

/// Whose route it is when the kernel answers that a missing route exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RivalRoute {
    /// Bobbin's: an ADD added it after the table was read.
    Own,
    /// Another program's: only Bobbin's routes of the table were read.
    OfAnotherProgram,
}

/// Corrects the routes of a protocol. `present` is what the tables hold; `keep` says which of those stay in any case.
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
            // A route that leads to a skipped link stays: its address may have moved to that link.
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
        "route {route} is missing: {program} has a route with the same key, and Bobbin leaves it alone; remove that route"
    )
}

/// Whether a present route is the wanted one. The kernel fills in the link of a route that names only a gateway.
fn agrees(seen: &Route, wanted: &Route) -> bool {
    let link = wanted.link.is_none() || wanted.link == seen.link;
    link && seen.via == wanted.via && seen.source == wanted.source && seen.blackhole == wanted.blackhole
}
