//! Blocks as routes: in the export table for routing daemons, and as a blackhole behind the pods' routes.
//!
//! Exported before the first address of the block is assigned, withdrawn before the block is given back.

use bobbin_ipam::BlockRange;
use ipnet::IpNet;

use crate::link::LOOPBACK;
use crate::netns::on_thread;
use crate::network::{Network, lock};
use crate::route::Route;
use crate::settings::Settings;
use crate::socket::{Ask, KernelError, gone_is_fine};

/// The networks of a block.
pub(crate) fn networks(block: &BlockRange) -> impl Iterator<Item = IpNet> + use<> {
    block.ipv4.map(IpNet::V4).into_iter().chain(block.ipv6.map(IpNet::V6))
}

/// The routes of a block: the blackhole first, so that an exported block never loops.
pub(crate) fn routes(settings: &Settings, block: &BlockRange) -> Vec<Route> {
    let blackholes = networks(block).map(|net| Route::blackhole(settings.pod_table, settings.protocol, net));
    let exports =
        networks(block).map(|net| Route::over(settings.export_table, settings.protocol, net, Some(LOOPBACK), None));
    blackholes.chain(exports).collect()
}

impl Network {
    /// Shows a block to routing daemons. Idempotent; a route of another program in that place is an error.
    pub async fn export(&self, block: &BlockRange) -> Result<(), KernelError> {
        let inner = self.inner.clone();
        let routes = routes(&inner.settings, block);
        let block = *block;
        on_thread(move || {
            inner.with_netlink(|netlink| {
                let answers = netlink.ask(routes.iter().map(Route::add).collect())?;
                for (answer, wanted) in answers.into_iter().zip(&routes) {
                    match answer {
                        Err(error) if error.errno() == Some(nix::libc::EEXIST) => {
                            let there = crate::route::list(netlink, wanted.table)?;
                            let same = there.iter().find(|seen| seen.same_place(wanted));
                            if same.is_none_or(|seen| {
                                seen.protocol != wanted.protocol || seen.blackhole != wanted.blackhole
                            }) {
                                return Err(KernelError::Foreign(format!(
                                    "{} is not exported: table {} has a route for it of another program (protocol {}); \
                                     remove that route, or give Bobbin another table",
                                    wanted.to,
                                    wanted.table,
                                    same.map_or(0, |seen| seen.protocol)
                                )));
                            }
                        }
                        answer => drop(answer?),
                    }
                }
                // What a failed export left goes with the next comparison, unless the caller lists the block.
                lock(&inner.in_place).put_block(block);
                Ok(())
            })
        })
        .await
    }

    /// Takes a block's routes away, the exported one first. Idempotent.
    pub async fn withdraw(&self, block: &BlockRange) -> Result<(), KernelError> {
        let inner = self.inner.clone();
        lock(&inner.in_place).remove_block(block);
        let asks: Vec<Ask> = routes(&inner.settings, block).iter().rev().map(Route::delete).collect();
        on_thread(move || inner.with_netlink(|netlink| netlink.ask(asks)?.into_iter().try_for_each(gone_is_fine))).await
    }
}
