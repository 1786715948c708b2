"""STAND-INS for what a Mac has: `xcodebuild`, `xcodegen`, `xcrun` and `sw_vers` that check what they are asked to do, and
packages with headers as theirs. Nothing of Apple's is in them, and nothing that they make could run anywhere."""
