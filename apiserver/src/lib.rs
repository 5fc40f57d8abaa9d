//! bobbin-apiserver
