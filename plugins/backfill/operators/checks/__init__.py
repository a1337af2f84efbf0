"""What preflight looks at, one module for each system: the same questions as the stages ask, without a consequence."""
