//! The only task that writes the node's blocks to the checkpoint. If a transition allows more allocations, the task first saves the
//! transition, and then the transition takes effect. If a transition allows fewer allocations, it takes effect first, and the task saves it
//! afterwards.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::state::checkpoint::{Checkpoint, CheckpointError};
use crate::state::{BlockEvent, CheckpointedBlock, NodeState};

/// The reason why a transition of a block was not applied.
#[derive(Debug, thiserror::Error)]
pub enum BlockCheckpointError {
    /// The agent could not write the list of blocks.
    #[error("the checkpoint of the node's blocks could not be written: {0}")]
    Write(#[from] Arc<CheckpointError>),
    /// The agent is shutting down.
    #[error("the checkpoint of the node's blocks was not written, because the agent is shutting down")]
    Stopping,
}

enum Request {
    Promote { block: String, event: BlockEvent, done: oneshot::Sender<Result<bool, BlockCheckpointError>> },
    Flush { done: oneshot::Sender<Result<(), BlockCheckpointError>> },
}

/// Sends requests to the [`BlockCheckpointWriter`]. Cheap to clone.
#[derive(Clone)]
pub struct BlockCheckpoint {
    requests: mpsc::UnboundedSender<Request>,
}

/// The task that writes the blocks in the checkpoint.
pub struct BlockCheckpointWriter {
    node_state: Arc<NodeState>,
    checkpoint: Checkpoint,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl BlockCheckpoint {
    /// Creates a handle for requests, and the writer that answers them.
    pub fn new(node_state: Arc<NodeState>, checkpoint: Checkpoint) -> (BlockCheckpoint, BlockCheckpointWriter) {
        let (requests, received) = mpsc::unbounded_channel();
        (BlockCheckpoint { requests }, BlockCheckpointWriter { node_state, checkpoint, requests: received })
    }

    /// Writes the list of blocks that results from this event, then applies the event. Returns false if the block's state changed
    /// meanwhile, so that the event had no effect.
    ///
    /// # Errors
    /// The list of blocks could not be written, so the event was not applied.
    pub async fn promote(&self, block: &str, event: BlockEvent) -> Result<bool, BlockCheckpointError> {
        let (done, answer) = oneshot::channel();
        self.send(Request::Promote { block: block.to_owned(), event, done })?;
        answer.await.unwrap_or(Err(BlockCheckpointError::Stopping))
    }

    /// Returns after the checkpoint contains all transitions that were applied before this call.
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
    /// Writes the list of blocks after every change of the node's state and for every request, until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changed = self.node_state.changed();
        let mut written: Option<Vec<CheckpointedBlock>> = None;
        loop {
            changed.mark_unchanged();
            let mut requested = Vec::new();
            while let Ok(request) = self.requests.try_recv() {
                requested.push(request);
            }
            self.write_and_apply(requested, &mut written);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changed.changed() => if changed.is_err() { return },
                request = self.requests.recv() => match request {
                    Some(request) => self.write_and_apply(vec![request], &mut written),
                    None => return,
                },
            }
        }
    }

    /// Writes the list of blocks with the requested transitions, applies these transitions and answers the requests. The file is on a
    /// tmpfs, so the write does not block.
    fn write_and_apply(&self, requested: Vec<Request>, written: &mut Option<Vec<CheckpointedBlock>>) {
        let promotions: Vec<(String, BlockEvent)> = requested
            .iter()
            .filter_map(|request| match request {
                Request::Promote { block, event, .. } => Some((block.clone(), *event)),
                Request::Flush { .. } => None,
            })
            .collect();
        let result = self.write(&promotions, written).map_err(Arc::new);
        if let Err(error) = &result {
            tracing::error!(%error, "the agent could not write the checkpoint of the node's blocks. Until a write succeeds, the node allocates only from blocks that are already in service. Make sure that the agent can write to its run directory");
        }
        for request in requested {
            // Ignore the result of each send, because a send fails only if the caller has stopped waiting.
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
        written: &mut Option<Vec<CheckpointedBlock>>,
    ) -> Result<(), CheckpointError> {
        let blocks = self.node_state.checkpoint_with(promotions);
        if written.as_ref() != Some(&blocks) {
            // If the write fails, the content of the file is unknown, so `written` must be `None`.
            *written = None;
            self.checkpoint.keep_blocks(&blocks)?;
            *written = Some(blocks);
        }
        Ok(())
    }
}
