job "broken" {
  group "runner" {
    no_such = 1
  }
}
