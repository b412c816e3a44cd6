// A file in assembly lets mask_test.go declare functions without bodies.
