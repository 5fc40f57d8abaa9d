//! bobbin-operator
