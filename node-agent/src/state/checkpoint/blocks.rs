//! The one writer of the list of blocks in the checkpoint. A transition that lets more addresses go out is written before it takes
//! effect; one that lets fewer go out takes effect at once and is written next.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::state::checkpoint::{Checkpoint, CheckpointError};
use crate::state::{BlockEvent, NodeState, SavedBlock};

/// Why a transition did not take place.
#[derive(Debug, thiserror::Error)]
pub enum BlockCheckpointError {
    /// The file could not be written.
    #[error("the list of blocks could not be written to the checkpoint: {0}")]
    Write(#[from] Arc<CheckpointError>),
    /// The agent stops.
    #[error("the agent stops")]
    Stopping,
}

enum Request {
    Promote { block: String, event: BlockEvent, done: oneshot::Sender<Result<bool, BlockCheckpointError>> },
    Flush { done: oneshot::Sender<Result<(), BlockCheckpointError>> },
}

/// Asks for writes. Cheap to clone.
#[derive(Clone)]
pub struct BlockCheckpoint {
    requests: mpsc::UnboundedSender<Request>,
}

/// Writes. Run it as a task.
pub struct BlockCheckpointWriter {
    node_state: Arc<NodeState>,
    checkpoint: Checkpoint,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl BlockCheckpoint {
    /// The handle and its writer.
    pub fn new(node_state: Arc<NodeState>, checkpoint: Checkpoint) -> (BlockCheckpoint, BlockCheckpointWriter) {
        let (requests, received) = mpsc::unbounded_channel();
        (BlockCheckpoint { requests }, BlockCheckpointWriter { node_state, checkpoint, requests: received })
    }

    /// Writes the list as it is after this event, then applies the event. False: the block's state had changed meanwhile, and the event
    /// means nothing to it any more.
    ///
    /// # Errors
    /// The list could not be written; nothing was applied.
    pub async fn promote(&self, block: &str, event: BlockEvent) -> Result<bool, BlockCheckpointError> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Promote { block: block.to_owned(), event, done })?;
        answer.await.unwrap_or(Err(BlockCheckpointError::Stopping))
    }

    /// Returns once the list says no more than the ledger.
    ///
    /// # Errors
    /// The list could not be written.
    pub async fn flush(&self) -> Result<(), BlockCheckpointError> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Flush { done })?;
        answer.await.unwrap_or(Err(BlockCheckpointError::Stopping))
    }

    fn send(&self, request: Request) -> Result<(), BlockCheckpointError> {
        self.requests.send(request).map_err(|_| BlockCheckpointError::Stopping)
    }
}

impl BlockCheckpointWriter {
    /// Writes whenever the ledger changes or somebody asks, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.node_state.changed();
        let mut written: Option<Vec<SavedBlock>> = None;
        loop {
            changed.mark_unchanged();
            let mut asked = Vec::new();
            while let Ok(request) = self.requests.try_recv() {
                asked.push(request);
            }
            self.turn(asked, &mut written);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changed.changed() => if changed.is_err() { return },
                request = self.requests.recv() => match request {
                    Some(request) => self.turn(vec![request], &mut written),
                    None => return,
                },
            }
        }
    }

    /// Writes the list with the transitions asked for, applies them, and answers. The list is on a tmpfs, so the write does not wait.
    fn turn(&self, asked: Vec<Request>, written: &mut Option<Vec<SavedBlock>>) {
        let promotions: Vec<(String, BlockEvent)> = asked
            .iter()
            .filter_map(|request| match request {
                Request::Promote { block, event, .. } => Some((block.clone(), *event)),
                Request::Flush { .. } => None,
            })
            .collect();
        let result = self.write(&promotions, written).map_err(Arc::new);
        if let Err(error) = &result {
            tracing::error!(%error, "the list of blocks could not be written to the checkpoint; no block goes into service until it can");
        }
        for request in asked {
            // Nobody listens only while the agent stops.
            match request {
                Request::Promote { block, event, done } => {
                    let applied = result.clone().map(|()| self.node_state.on(&block, event)).map_err(Into::into);
                    drop(done.send(applied));
                }
                Request::Flush { done } => drop(done.send(result.clone().map_err(Into::into))),
            }
        }
    }

    fn write(
        &self,
        promotions: &[(String, BlockEvent)],
        written: &mut Option<Vec<SavedBlock>>,
    ) -> Result<(), CheckpointError> {
        let blocks = self.node_state.saved_with(promotions);
        if written.as_ref() != Some(&blocks) {
            // What stands in the file is unknown until the write has succeeded.
            *written = None;
            self.checkpoint.keep_blocks(&blocks)?;
            *written = Some(blocks);
        }
        Ok(())
    }
}
