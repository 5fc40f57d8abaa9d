//! Renders the catalog of events, conditions and CNI errors as Markdown.

use std::fmt::Write;

use bobbin_cni_wire::code::{self, Code};
use bobbin_messages::condition::{self, TYPES};
use bobbin_messages::event::{agent, operator};
use bobbin_messages::{Condition, Event, EventType, Reporter};

const HEAD: &str = "<!-- This page is generated from the code: run `cargo xtask messages`. -->

# Events, conditions and errors

This page lists every event and every condition that Bobbin publishes, and every error code of the CNI plugin.
A text contains placeholders such as `<pool>`. One event or condition can have several forms of its text.

Events have the API version `events.k8s.io/v1`. To list the events of Bobbin, run:

```
kubectl get events -A --field-selector reportingComponent=bobbin.dev/agent
kubectl get events -A --field-selector reportingComponent=bobbin.dev/operator
```

A note has at most 1024 bytes. A long list in a note names the first objects and counts the others. If a note is still too long,
Bobbin cuts out the middle of the note, because the advice is at the end.
";

/// Returns the page as Markdown.
pub fn render() -> String {
    let mut page = HEAD.to_owned();
    for (title, reporter, instance, events) in [
        ("agent", Reporter::AGENT, "the name of the node", agent::ALL),
        ("operator", Reporter::OPERATOR, "the name of the operator's pod", operator::ALL),
    ] {
        let controller = reporter.controller();
        let _ = write!(
            page,
            "\n## Events of the {title}\n\n`reportingController` is `{controller}`, and `reportingInstance` is {instance}.\n"
        );
        if reporter == Reporter::OPERATOR {
            let check = Reporter::UNINSTALL_CHECK.controller();
            let _ = writeln!(page, "The event `UninstallRefused` comes from `{check}`.");
        }
        for event in events {
            event_section(&mut page, event);
        }
    }
    page.push_str("\n## Conditions of an AddressPool\n\n`kubectl describe addresspool` shows the conditions.\n");
    for type_ in TYPES {
        let _ = write!(page, "\n### Condition `{type_}`\n");
        for entry in condition::all().filter(|entry| entry.types.contains(&type_)) {
            condition_section(&mut page, type_, entry);
        }
    }
    page.push_str(
        "\n## Errors of the CNI plugin\n\nThe container runtime shows the message of an error in the pod's events.\n",
    );
    for code in code::ALL {
        code_section(&mut page, code);
    }
    page
}

fn event_section(page: &mut String, event: &Event) {
    let type_ = match event.type_ {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
        EventType::Either => "Warning, or Normal if no address is affected",
    };
    let _ = write!(
        page,
        "\n### Event `{}`\n\n- Type: {type_}\n- Objects: {}\n- Action: `{}`\n- Cause: {}\n- Remedy: {}\n",
        event.reason, event.objects, event.action, event.cause, event.remedy
    );
    text_blocks(page, event.texts);
}

fn condition_section(page: &mut String, type_: &str, entry: &Condition) {
    let _ = write!(
        page,
        "\n#### `{type_}={}`, reason `{}`\n\n- Cause: {}\n- Remedy: {}\n",
        entry.status, entry.reason, entry.cause, entry.remedy
    );
    text_blocks(page, entry.texts);
}

fn code_section(page: &mut String, code: &Code) {
    let _ = write!(
        page,
        "\n### Error {} `{}`\n\n- Cause: {}\n- Remedy: {}\n",
        code.number, code.name, code.cause, code.remedy
    );
    text_blocks(page, code.texts);
}

fn text_blocks(page: &mut String, texts: &[&str]) {
    for text in texts {
        let _ = write!(page, "\n```text\n{}\n```\n", text.replace("<>", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_each_event_condition_and_error() {
        let page = render();
        for event in agent::ALL.iter().chain(operator::ALL) {
            assert!(page.contains(&format!("### Event `{}`", event.reason)), "{event:?}");
        }
        for entry in condition::all() {
            assert!(page.contains(&format!("={}`, reason `{}`", entry.status, entry.reason)), "{entry:?}");
        }
        assert!(code::ALL.iter().all(|code| page.contains(&format!("### Error {} ", code.number))));
    }
}
