//! What the demo and the tests release: the sample application, and an image of it built without a toolchain.

pub mod image;
pub mod load;
pub mod sample_app;
pub mod stage;
