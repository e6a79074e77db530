//! One block: what one write put on disk.
