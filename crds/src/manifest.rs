//! The manifests of the kinds, generated from the types.
