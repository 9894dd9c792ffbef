package target

// minQueue is the smallest command window that a session can be given.
const minQueue = 4

// flow is the connection layer's part of a Task.
type flow struct{}
