//! Routes as they are and as they should be: stale ones go, missing ones come, foreign ones in their place are named.

use crate::converge::work::{Owner, Work};
use crate::route::Route;
use crate::socket::is_gone;

/// A route that should be there, and what it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) route: Route,
    pub(super) owner: Owner,
}

/// Who must have been quicker when the kernel says that a missing route exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// This program: an ADD made it after the table was read.
    ByUs,
    /// Another program: the table was read for our routes only.
    ByOthers,
}

/// Puts the routes of a protocol right. `there` is what the tables hold; of it `keep` names what stays in any case.
pub(super) fn repair_table(
    work: &mut Work<'_>,
    there: &[Route],
    protocol: u8,
    wanted: &[Wanted],
    keep: impl Fn(&Route) -> bool,
    taken: Taken,
) {
    for stale in there.iter().filter(|seen| seen.protocol == protocol && !keep(seen)) {
        if !wanted.iter().any(|wanted| wanted.route.same_place(stale)) {
            work.remove(&Owner::node(), format!("removed the stale route {stale}"), stale.delete());
        }
    }
    for Wanted { route, owner } in wanted {
        let in_place: Vec<&Route> = there.iter().filter(|seen| seen.same_place(route)).collect();
        let foreign = in_place.iter().find(|seen| seen.protocol != protocol);
        let ours = in_place.iter().find(|seen| seen.protocol == protocol);
        match (ours, foreign) {
            // An address that moved to another link meanwhile is not pulled back.
            (Some(ours), _) if agrees(ours, route) || keep(ours) => {}
            (Some(ours), _) => {
                let removed = work.send(ours.delete());
                match removed {
                    Err(error) if !is_gone(&error) => {
                        work.note(owner, format!("removed the wrong route {ours}"), Err(error));
                    }
                    _ => add(work, owner, format!("replaced the wrong route {ours} by {route}"), route, taken),
                }
            }
            (None, Some(foreign)) => {
                let by = format!("another program (protocol {}) has a route in its place", foreign.protocol);
                work.refused(owner, missing(route, &by));
            }
            (None, None) => add(work, owner, format!("added the missing route {route}"), route, taken),
        }
    }
}

fn add(work: &mut Work<'_>, owner: &Owner, what: String, route: &Route, taken: Taken) {
    match (work.send(route.add()), taken) {
        (Err(error), Taken::ByUs) if error.errno() == Some(nix::libc::EEXIST) => {}
        (Err(error), Taken::ByOthers) if error.errno() == Some(nix::libc::EEXIST) => {
            work.refused(owner, missing(route, "another program has a route in its place"));
        }
        (result, _) => work.note(owner, what, result),
    }
}

fn missing(route: &Route, why: &str) -> String {
    format!("route {route} is missing: {why}, which is left alone; remove that route")
}

/// Whether a route seen is the one wanted. The kernel fills in the link of a route that names only a gateway.
fn agrees(seen: &Route, wanted: &Route) -> bool {
    let link = wanted.link.is_none() || wanted.link == seen.link;
    link && seen.via == wanted.via && seen.source == wanted.source && seen.blackhole == wanted.blackhole
}
