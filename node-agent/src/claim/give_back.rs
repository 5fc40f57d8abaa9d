//! Gives a block back: no assignment, no route, then the block itself. Called by stock and leave; it decides nothing about when.

use std::time::Duration;

use bobbin_apiserver::{Outcome, ReadError, Refusal};
use bobbin_crds::AddressBlock;
use jiff::Timestamp;
use kube::api::PostParams;

use super::transition::released;
use super::{Claims, DEADLINE, GiveBackError, Standing, Turn, standing};
use crate::ledger::HeldBlock;
use crate::watch::NodeFacts;

impl Claims {
    /// Gives a block back: no assignment from it, then no route, then the block itself. Until the API server has confirmed, nothing is
    /// assigned from it.
    ///
    /// # Errors
    /// See [`GiveBackError`].
    pub async fn give_back(&self, block: &str) -> Result<(), GiveBackError> {
        let _turn = Turn::take(&self.0.going_back, block).ok_or_else(|| GiveBackError::StillUsed(block.to_owned()))?;
        let held = self.0.ledger.begin_release(block).map_err(|_| GiveBackError::StillUsed(block.to_owned()))?;
        if let Err(error) = self.0.exports.withdraw(held.range).await {
            self.keep(&held).await;
            return Err(error.into());
        }
        let Some(node) = self.0.view.node() else {
            self.keep(&held).await;
            return Err(GiveBackError::Unreachable {
                block: block.to_owned(),
                why: "the Node object is unknown".to_owned(),
            });
        };
        self.until_free(&held, &node).await;
        self.0.ledger.end_release(block, true);
        tracing::info!(block, pool = held.pool, "gave a block back");
        Ok(())
    }

    /// Tries until the API server says that the block is not ours: there is no way back, since an update whose outcome is unknown may
    /// still come true.
    async fn until_free(&self, held: &HeldBlock, node: &NodeFacts) {
        let mut known: Option<AddressBlock> = None;
        for attempt in 0.. {
            let current = match known.take() {
                Some(block) => Ok(block),
                None => bobbin_apiserver::read(DEADLINE, self.api().get(&held.name)).await,
            };
            match current {
                Err(ReadError::NotFound) => return,
                Ok(block) if matches!(standing(&block, node), Standing::Free | Standing::Others) => return,
                // Ours, also in the name of an earlier Node: nobody else would give it back.
                Ok(block) => {
                    let wanted = released(block, Timestamp::now());
                    let write = self.api();
                    match bobbin_apiserver::write(DEADLINE, write.replace(&held.name, &PostParams::default(), &wanted))
                        .await
                    {
                        Outcome::Done(_) | Outcome::Refused(Refusal::NotFound) => return,
                        Outcome::Refused(Refusal::Conflict) => continue,
                        Outcome::Refused(refusal) => {
                            tracing::error!(block = held.name, %refusal, "a block can't be given back; trying on");
                        }
                        Outcome::Unknown(why) => {
                            tracing::debug!(block = held.name, %why, "the outcome of a give-back is unknown");
                        }
                    }
                }
                Err(error) => tracing::debug!(block = held.name, %error, "a block that goes back can't be read"),
            }
            tokio::time::sleep(bobbin_apiserver::backoff(attempt, Duration::from_millis(200), Duration::from_secs(5)))
                .await;
        }
    }

    /// A release that was not begun at the API server is undone: route first.
    async fn keep(&self, held: &HeldBlock) {
        if let Err(error) = self.0.exports.export(held.range).await {
            tracing::error!(block = held.name, %error, "the route of a block that stays could not be put back; the next repair tries again");
        }
        self.0.ledger.end_release(&held.name, false);
    }
}
