mod draw;
fn main() {}
