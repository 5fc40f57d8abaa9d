//! Compares the routes of one protocol number with the wanted routes. Removes stale routes, adds missing routes, and
//! reports conflicts with other programs.

use nix::libc;

use crate::netlink::is_gone;
use crate::netlink::route::Route;
use crate::node::reconcile::pass::{Owner, Pass};

/// A route that should exist, and the owner to report when the route is changed.
#[derive(Clone, Debug)]
pub(super) struct WantedRoute {
    pub(super) route: Route,
    pub(super) owner: Owner,
}

/// The program whose route makes the kernel answer `EEXIST` when the pass adds a missing route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RivalRoute {
    /// Bobbin. The pass has read all routes of this table, so an ADD must have added the route after that.
    Own,
    /// Another program. The pass has not seen the route, because it reads only Bobbin's routes of this table.
    OfAnotherProgram,
}

/// Corrects the routes of one protocol number. `present` holds the routes that the pass has read; `keep` selects routes
/// that must stay.
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
            // A route that `keep` selects stays even if it differs from the wanted route. For example, `keep` selects a
            // route over a link that the pass skips. An ADD may just have given the address to that link's attachment.
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
        "route {route} is missing, because {program} has a route with the same table, prefix and metric; remove the other program's route"
    )
}

/// Whether an existing route equals the wanted route. Without a wanted link, any link counts as equal, because the
/// kernel chose the link. Without a wanted source, any source counts as equal, because the agent may not know the
/// node's addresses yet.
fn agrees(seen: &Route, wanted: &Route) -> bool {
    let link = wanted.link.is_none() || wanted.link == seen.link;
    let source = wanted.source.is_none() || wanted.source == seen.source;
    link && source && seen.via == wanted.via && seen.blackhole == wanted.blackhole
}
