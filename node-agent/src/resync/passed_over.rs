//! Addresses that another attachment has a record of: kept over a restart, and handed out again when that record is gone.

use bobbin_apiserver::ReadError;

use super::Resync;
use crate::ledger::ForeignRecord;
use crate::record::read_record;

impl Resync {
    /// Does not hand an address out while that record is there.
    pub(super) fn pass_over(&self, record: ForeignRecord) {
        if let Err(error) = self.journal.keep_passed_over(&record) {
            tracing::error!(%error, "an address that is passed over could not be written down");
        }
        self.ledger.pass_over(record);
    }

    /// Reads the record of every address that is passed over.
    pub(super) async fn recheck_passed_over(&self) {
        for passed in self.ledger.passed_over() {
            match read_record(&self.clients, &passed.name).await {
                Err(ReadError::NotFound) => self.end_pass_over(&passed),
                Ok(record) if record.node_name == self.view.node_name() => self.end_pass_over(&passed),
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(record = passed.name, %error, "a record can't be read; its address stays passed over");
                }
            }
        }
    }

    fn end_pass_over(&self, passed: &ForeignRecord) {
        if let Err(error) = self.journal.forget_passed_over(passed) {
            tracing::error!(%error, "an address that is free again is still written down as passed over");
        }
        if self.ledger.end_pass_over(passed.pair) {
            tracing::info!(address = %passed.pair, "the record of another attachment is gone: the address can be handed out again");
        }
    }
}
