//! Reads the API server's list of free blocks page by page, and selects the block to claim.

use std::collections::{BTreeSet, HashSet};

use bobbin_crds::AddressPool;
use bobbin_datapath::{OccupiedNet, boot_time};
use jiff::Timestamp;
use kube::ResourceExt;

use super::node_network::{covers_pool, named, networks_in};
use super::{ClaimError, Claims, unreachable};
use crate::blocks::read::{BlockInfo, BlockVersion, best_free_block};
use crate::cluster::NodeInfo;
use crate::cluster::pool_selection::has_subnet_of;

/// How many pages a claim lists to find a block that has cooled down.
const MAX_PAGES_FOR_COOLED: u32 = 4;

/// What a claim knows about the free blocks on the pages that it has listed so far.
#[derive(Default)]
struct Listed {
    /// Whether at least one listed block shares no address with the node's own networks.
    any_usable: bool,
    /// The node's own networks that share addresses with listed blocks.
    refused_for: BTreeSet<OccupiedNet>,
}

impl Listed {
    /// Adds a page of free blocks. Returns the blocks of the page that share no address with the node's own networks.
    fn add(&mut self, mut page: Vec<BlockInfo>, occupied: &[OccupiedNet]) -> Vec<BlockInfo> {
        page.retain(|block| {
            let inside: Vec<OccupiedNet> = networks_in(block, occupied).collect();
            self.refused_for.extend(&inside);
            inside.is_empty()
        });
        self.any_usable |= !page.is_empty();
        page
    }

    /// Why none of the blocks can be claimed.
    fn why_none(self, pool: String, node: &NodeInfo, cooled_only: bool) -> ClaimError {
        match (self.any_usable, self.refused_for.is_empty()) {
            (true, _) if cooled_only => ClaimError::OnlyCooling(pool),
            (false, false) => {
                let what = named(&self.refused_for.into_iter().collect::<Vec<_>>());
                ClaimError::NodeNetwork { pool, node: node.name.clone(), what }
            }
            _ => ClaimError::PoolFull(pool),
        }
    }
}

impl Claims {
    /// Lists the free blocks of a pool and selects the one to claim. Skips each block whose version is in `tried`.
    ///
    /// Usually one page is enough. The agent skips blocks outside the pool's subnets, and blocks with addresses that the node itself uses.
    /// If a page has no block to claim, the agent lists the next page in two cases. Either the agent skipped blocks, or the agent needs a
    /// block that has cooled down.
    pub(super) async fn select_free(
        &self,
        pool: &AddressPool,
        node: &NodeInfo,
        cooled_only: bool,
        occupied: &[OccupiedNet],
        tried: &HashSet<BlockVersion>,
    ) -> Result<BlockInfo, ClaimError> {
        let pool_name = pool.name_any();
        let (mut listed, mut after, mut pages) = (Listed::default(), None, 0);
        loop {
            pages += 1;
            let page = self.0.api.list_free(&pool_name, after.as_deref()).await;
            self.0.freshness.observe_read(&page, boot_time());
            let mut page = page.map_err(|error| unreachable(&pool_name, &error))?;
            let listed_len = page.blocks.len();
            page.blocks.retain(|block| block.range.is_none_or(|range| has_subnet_of(pool, &range)));
            let any_outside = page.blocks.len() < listed_len;
            let usable = listed.add(page.blocks, occupied);
            let may_claim = |block: &BlockInfo| {
                !tried.contains(&block.version()) && self.0.node_state.block_state(&block.name).is_none()
            };
            let (now, cooldown) = (Timestamp::now(), pool.spec.cooldown());
            if let Some(best) = best_free_block(usable, &node.name, self.seed(), now, cooldown, cooled_only, may_claim)
            {
                return Ok(best);
            }
            after = page.next;
            let wants_cooled = cooled_only && pages < MAX_PAGES_FOR_COOLED;
            let any_skipped = any_outside || wants_cooled || !listed.refused_for.is_empty();
            if after.is_none() || !any_skipped || covers_pool(pool, occupied) {
                return Err(listed.why_none(pool_name, node, cooled_only));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bobbin_datapath::NetworkUse;

    use super::*;

    fn block(range: &str) -> BlockInfo {
        BlockInfo { range: bobbin_ipam::BlockRange::parse(Some(range), None).ok(), ..BlockInfo::default() }
    }

    fn connected(net: &str) -> OccupiedNet {
        OccupiedNet { used_as: NetworkUse::Connected, net: net.parse().unwrap() }
    }

    #[test]
    fn a_usable_block_on_a_later_page_counts() {
        let occupied = [connected("10.90.0.0/24"), connected("172.16.0.0/24")];
        let mut listed = Listed::default();
        assert!(listed.add(vec![block("10.90.0.0/28"), block("10.90.0.16/28")], &occupied).is_empty());
        assert_eq!(listed.refused_for, BTreeSet::from([occupied[0]]));
        assert_eq!(listed.add(vec![block("10.90.1.0/28")], &occupied).len(), 1);
        let why = listed.why_none("p".into(), &NodeInfo::default(), true);
        assert!(matches!(why, ClaimError::OnlyCooling(_)), "{why}");
    }

    #[test]
    fn the_error_names_only_the_networks_of_refused_blocks() {
        let mut listed = Listed::default();
        listed.add(vec![block("10.90.0.0/28")], &[connected("10.90.0.0/24"), connected("172.16.0.0/24")]);
        let why = listed.why_none("p".into(), &NodeInfo::default(), true).to_string();
        assert!(why.ends_with(": the connected subnet 10.90.0.0/24 of the node"), "{why}");
        let none = Listed::default().why_none("p".into(), &NodeInfo::default(), true);
        assert!(matches!(none, ClaimError::PoolFull(_)), "{none}");
    }
}
