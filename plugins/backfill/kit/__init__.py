"""What every stage is built from: the wait loop, the shared poll, stores, XComs and task states."""
