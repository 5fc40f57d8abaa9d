//! Waits for changes of the objects from which the commands make their reports.

use std::fmt::Debug;
use std::time::Duration;

use bobbin_api_client::PartialNode;
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

/// Changes within this time count as one change.
const SETTLE_TIME: Duration = Duration::from_secs(1);

/// The changes of all Nodes, pools, blocks and assignments.
pub(crate) struct Changes(BoxStream<'static, ()>);

impl Changes {
    /// Starts to watch.
    pub(crate) fn new(client: &Client) -> Self {
        let all = [
            changes::<PartialNode>(client),
            changes::<AddressPool>(client),
            changes::<AddressBlock>(client),
            changes::<IPAssignment>(client),
        ];
        Self(stream::select_all(all).boxed())
    }

    /// Waits for the next change, and a moment longer for further changes.
    pub(crate) async fn next(&mut self) {
        self.0.next().await;
        tokio::time::sleep(SETTLE_TIME).await;
        while self.0.next().now_or_never().flatten().is_some() {}
    }
}

/// One item for each change. A watch that fails starts again, and its new list counts as a change. The first list does not
/// count, because the caller has just printed the objects.
fn changes<K>(client: &Client) -> BoxStream<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(Api::<PartialObjectMeta<K>>::all(client.clone()), watcher::Config::default());
    let mut is_first = true;
    let mut was_reported = false;
    let changes = events.default_backoff().filter_map(move |event| {
        let change = match event {
            Ok(Event::Apply(_) | Event::Delete(_)) => Some(()),
            Ok(Event::InitDone) => (!std::mem::take(&mut is_first)).then_some(()),
            Ok(Event::Init | Event::InitApply(_)) => None,
            Err(error) => {
                if !std::mem::replace(&mut was_reported, true) {
                    anstream::eprintln!("warning: can't watch {}, so changes may be missing: {error}", K::plural(&()));
                }
                None
            }
        };
        std::future::ready(change)
    });
    changes.boxed()
}
