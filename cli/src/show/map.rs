//! `map`: a picture of a pool. Each line is a claimed block, and each character stands for one address or, in a large block, for
//! several.

use std::collections::{BTreeMap, BTreeSet};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use bobbin_api_client::Lenient;
use bobbin_crds::{AddressBlock, AddressPool, IPAssignment};
use bobbin_ipam::{BlockRange, Reserved};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;

use crate::Answer;
use crate::api::objects;
use crate::api::reserved::reserved;
use crate::print::count::counted;
use crate::print::output::{Output, Report};

/// How many characters show the addresses of one block. In a larger block, one character stands for several addresses.
const WIDTH: u32 = 64;

/// Prints the picture of a pool.
pub(crate) async fn run(client: &Client, pool: &str, output: Output) -> Result<Answer> {
    let found = objects::get(&Api::<Lenient<AddressPool>>::all(client.clone()), pool)
        .await?
        .with_context(|| format!("AddressPool {pool} does not exist; list all pools with: kubectl bobbin pools"))?;
    let of_pool = format!("spec.poolName={pool}");
    let assignments = objects::list(&Api::<Lenient<IPAssignment>>::all(client.clone()), &of_pool).await?;
    let blocks = objects::list(&Api::<Lenient<AddressBlock>>::all(client.clone()), &of_pool).await?;
    output.print(&draw(&found, &blocks, &assignments))?;
    Ok(Answer::Yes)
}

/// The blocks of a pool.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Map {
    pub(crate) pool: String,
    /// The claimed blocks, in the order of their indices.
    claimed: Vec<ClaimedBlock>,
    /// How many of the existing blocks no node has claimed.
    free_blocks: usize,
    /// How many blocks the operator can still create.
    uncarved_blocks: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimedBlock {
    name: String,
    range: String,
    node: String,
    size: u32,
    /// The offsets of the addresses in the block.
    assigned: BTreeSet<u32>,
    reserved: BTreeSet<u32>,
}

/// The picture of a pool from its blocks and its assignments.
pub(crate) fn draw(pool: &AddressPool, blocks: &[AddressBlock], assignments: &[IPAssignment]) -> Map {
    let reserved = reserved(pool);
    let mut by_block: BTreeMap<&str, Vec<&IPAssignment>> = BTreeMap::new();
    for assignment in assignments {
        by_block.entry(&assignment.spec.block_name).or_default().push(assignment);
    }
    let mut sorted: Vec<&AddressBlock> = blocks.iter().collect();
    sorted.sort_by_key(|block| block.spec.index);
    let claimed = sorted.iter().filter_map(|block| {
        let range = BlockRange::parse(block.spec.ipv4.as_deref(), block.spec.ipv6.as_deref()).ok()?;
        let name = block.name_any();
        let assigned =
            by_block.get(name.as_str()).into_iter().flatten().filter_map(|one| offset(&range, one)).collect();
        Some(ClaimedBlock {
            range: range.to_string(),
            node: block.spec.node_name.clone()?,
            size: range.len(),
            assigned,
            reserved: reserved_offsets(&range, &reserved),
            name,
        })
    });
    let free_blocks = blocks.iter().filter(|block| block.spec.node_name.is_none()).count();
    // In the status, the free blocks include blocks that the operator has not created yet.
    let claimable = pool.status.as_ref().map_or(0, |status| status.blocks.free);
    let uncarved_blocks = claimable.saturating_sub_unsigned(free_blocks as u64).max(0);
    Map { pool: pool.name_any(), claimed: claimed.collect(), free_blocks, uncarved_blocks }
}

fn offset(range: &BlockRange, assignment: &IPAssignment) -> Option<u32> {
    let text = assignment.spec.ipv4.as_ref().or(assignment.spec.ipv6.as_ref())?;
    range.offset_of(text.parse().ok()?)
}

fn reserved_offsets(range: &BlockRange, reserved: &Reserved) -> BTreeSet<u32> {
    if reserved.count_in(&range.as_subnet()) == 0 {
        return BTreeSet::new();
    }
    (0..range.len()).filter(|offset| range.pair(*offset).is_some_and(|pair| reserved.covers(&pair))).collect()
}

impl ClaimedBlock {
    /// One character for each address, or for several addresses in a large block. The character shows how many of them are in use.
    fn picture(&self) -> String {
        let per_cell = self.size.div_ceil(WIDTH);
        let green = Style::new().fg_color(Some(AnsiColor::Green.into()));
        let yellow = Style::new().fg_color(Some(AnsiColor::Yellow.into()));
        let cells = (0..self.size).step_by(per_cell as usize).map(|first| {
            let cell = first..(first + per_cell).min(self.size);
            let used = self.assigned.range(cell.clone()).count();
            let reserved = self.reserved.range(cell.clone()).count();
            match (used, cell.len()) {
                (0, size) if reserved == size => format!("{yellow}x{yellow:#}"),
                (0, _) => "·".to_owned(),
                (used, size) if used * 2 > size => format!("{green}█{green:#}"),
                _ => format!("{green}▒{green:#}"),
            }
        });
        cells.collect()
    }
}

impl Report for Map {
    fn text(&self, _: bool) -> String {
        let width =
            |text: fn(&ClaimedBlock) -> &str| self.claimed.iter().map(|block| text(block).len()).max().unwrap_or(0);
        let (name, range, node) = (width(|block| &block.name), width(|block| &block.range), width(|block| &block.node));
        let mut lines = vec![format!("Pool {}", self.pool)];
        for block in &self.claimed {
            let used = format!("{}/{}", block.assigned.len(), block.size);
            let picture = block.picture();
            lines.push(format!(
                "  {:name$}  {:range$}  {:node$}  {used:>9}  {picture}",
                block.name, block.range, block.node
            ));
        }
        lines.push(format!(
            "  {}, {}, {} that the operator can still create",
            counted(self.claimed.len(), "claimed block"),
            counted(self.free_blocks, "free block"),
            counted(self.uncarved_blocks, "block")
        ));
        lines.push("  █ used (in a large block: mostly used)   ▒ partly used   · not used   x reserved".to_owned());
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(size: u32, assigned: &[u32], reserved: &[u32]) -> ClaimedBlock {
        ClaimedBlock {
            name: "p-0".into(),
            range: "10.0.0.0/29".into(),
            node: "n1".into(),
            size,
            assigned: assigned.iter().copied().collect(),
            reserved: reserved.iter().copied().collect(),
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn each_address_of_a_small_block_has_a_character() {
        assert_eq!(plain(&block(8, &[0, 3], &[7]).picture()), "█··█···x");
    }

    #[test]
    fn a_character_of_a_large_block_stands_for_several_addresses() {
        let picture = plain(&block(256, &[0, 1, 2, 8], &[]).picture());
        assert_eq!((picture.chars().count(), picture.chars().take(4).collect::<String>().as_str()), (64, "█·▒·"));
    }
}
