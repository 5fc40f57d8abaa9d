//! bobbin-node-agent
