//! The catalog of events: the reason, objects, type, texts, cause and remedy of each event that Bobbin publishes.

pub mod agent;
pub mod operator;

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// A notice.
    Normal,
    /// A problem.
    Warning,
    /// Warning if addresses of pods are affected, and Normal if only empty blocks are affected.
    Either,
}

/// An entry of the catalog. Only this crate can create one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Event {
    /// The event's `reason`.
    pub reason: &'static str,
    /// The event's `type`.
    pub type_: EventType,
    /// The kinds of the objects that the event may be about.
    pub objects: &'static str,
    /// The event's `action`: what the program did or tried.
    pub action: &'static str,
    /// The forms of the event's `note`, with placeholders such as `<pool>`. `<>` stands where the code joins two texts.
    pub texts: &'static [&'static str],
    /// Why the program publishes the event.
    pub cause: &'static str,
    /// What an administrator should do.
    pub remedy: &'static str,
}

/// Defines the events of one program: `NAME: Type "Reason" on "kinds", "Action" { texts: [...], cause: "...", remedy: "..." }`.
/// `ALL` lists all of them.
macro_rules! events {
    ($($id:ident: $type_:ident $reason:literal on $objects:literal, $action:literal {
        texts: [$($text:literal),+ $(,)?],
        cause: $cause:literal,
        remedy: $remedy:literal $(,)?
    })+) => {
        $(
            #[doc = $cause]
            pub const $id: $crate::Event = $crate::Event {
                reason: $reason,
                type_: $crate::EventType::$type_,
                objects: $objects,
                action: $action,
                texts: &[$($text),+],
                cause: $cause,
                remedy: $remedy,
            };
        )+
        /// All events of the program, in the order of their reasons.
        pub const ALL: &[$crate::Event] = &[$($id),+];
    };
}
pub(crate) use events;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reasons_of_each_program_are_sorted_and_unique_and_valid() {
        for all in [agent::ALL, operator::ALL] {
            let lower = |event: &Event| event.reason.to_lowercase();
            assert!(all.windows(2).all(|pair| lower(&pair[0]) < lower(&pair[1])), "{all:#?}");
            for event in all {
                // The API server refuses a longer reason or action.
                assert!(event.reason.len() <= 128 && event.action.len() <= 128, "{event:?}");
                assert!(
                    !event.reason.contains(' ') && !event.cause.is_empty() && !event.remedy.is_empty(),
                    "{event:?}"
                );
            }
        }
    }
}
