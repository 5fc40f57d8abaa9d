//! Recognizes the names that Kubernetes accepts.

/// Whether a Node, a pod, a namespace or an object of Bobbin can have this name. Checks the letters, the ends and the length
/// of a DNS subdomain (RFC 1123), but not each label. Refuses a slash, because it would change the path of a request.
pub fn is_object_name(name: &str) -> bool {
    let inner = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-.".contains(&letter);
    let edge = |letter: Option<&u8>| letter.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 253 && bytes.iter().copied().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::is_object_name;

    #[test]
    fn names_that_kubernetes_refuses_are_recognized() {
        for name in ["a", "web-0", "a.b-c", "10.0.0.1"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", " ", "a/b", "A", "-a", "a-", "a b", "..", "ä", &"a".repeat(254)] {
            assert!(!is_object_name(name), "{name}");
        }
    }
}
