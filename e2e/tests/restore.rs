//! Tests the restore of etcd from an older snapshot, as docs/backup-and-restore.md describes it. In some tests, the
//! restore raises etcd's revision, and in others it does not.
//!
//! Between snapshot and restore, blocks change their owner. After the restore, the objects in the API contradict the
//! addresses of running pods.

#[path = "restore/contact.rs"]
mod contact;
#[path = "restore/fixture.rs"]
mod fixture;
#[path = "restore/late.rs"]
mod late;
#[path = "restore/newer.rs"]
mod newer;
#[path = "restore/watches.rs"]
mod watches;

use std::process::ExitCode;

use anyhow::Result;
use bobbin_e2e::control_plane::Revision;
use bobbin_e2e::single_node::own_mounts;
use bobbin_e2e::suite::Suite;
use fixture::on_new_nodes;

fn main() -> Result<ExitCode> {
    own_mounts()?;
    let suite = Suite::without_fixture()?;
    let tests = vec![
        suite.test(
            "after a restore of etcd, nodes in contact assign no address twice, and running pods keep theirs",
            async |_: &mut _| on_new_nodes(async |nodes| contact::no_duplicate(nodes, Revision::OfSnapshot).await).await,
        ),
        suite.test(
            "after a restore of etcd with raised revisions, nodes in contact assign no address twice, and running pods keep theirs",
            async |_: &mut _| on_new_nodes(async |nodes| contact::no_duplicate(nodes, Revision::Raised).await).await,
        ),
        suite.test(
            "a node that returns after a restore of etcd reports each of its duplicates within a minute",
            async |_: &mut _| on_new_nodes(async |nodes| late::reported(nodes, Revision::OfSnapshot).await).await,
        ),
        suite.test(
            "a node that returns after a restore of etcd with raised revisions reports each of its duplicates within a minute",
            async |_: &mut _| on_new_nodes(async |nodes| late::reported(nodes, Revision::Raised).await).await,
        ),
        suite.test(
            "after a restore of etcd, pods of a newer subnet keep their addresses, and it is carved again once they have ended",
            async |_: &mut _| on_new_nodes(newer::not_carved_over).await,
        ),
        suite.test(
            "after a restore of etcd, operator and agents see new objects at once though their versions are older",
            async |_: &mut _| on_new_nodes(watches::see_new_objects).await,
        ),
    ];
    Ok(suite.run(tests))
}
