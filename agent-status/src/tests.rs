//! Tests that documents of other versions can be read.

use super::*;

#[test]
fn a_document_of_a_newer_agent_is_read_and_unknown_states_stay_unknown() {
    let text = r#"{"node": "n1", "invented": {"a": 1}, "mode": "sleep", "attachments": [{"containerID": "c", "state": "asleep", "colour": 1}],
        "blocks": [{"name": "p-0", "state": "borrowed"}, {"name": "p-1", "state": "serving", "proven": true}]}"#;
    let status: AgentStatus = serde_json::from_str(text).unwrap();
    assert_eq!((status.mode, status.attachments[0].state), (AgentMode::Unknown, AttachmentState::Unknown));
    let blocks: Vec<_> = status.blocks.iter().map(|block| (block.state, block.proven)).collect();
    assert_eq!(blocks, [(BlockPhase::Unknown, false), (BlockPhase::Serving, true)]);
}

#[test]
fn a_document_of_an_older_agent_gets_defaults() {
    assert_eq!(serde_json::from_str::<AgentStatus>("{}").unwrap(), AgentStatus::default());
}

#[test]
fn the_name_of_a_state_is_its_text_in_the_document() {
    for state in [BlockPhase::Claiming, BlockPhase::Exporting, BlockPhase::Doubted, BlockPhase::Lost] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    }
    for state in [AttachmentState::Adding, AttachmentState::Running, AttachmentState::Ending, AttachmentState::Broken] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.to_string());
    }
}
