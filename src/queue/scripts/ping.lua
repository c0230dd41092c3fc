#!lua flags=allow-oom
-- Does nothing. Being a script that may write, it is refused where the work's scripts would be: on a
-- replica, while loading, after a failed save.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- Result: the store's time, ms

return now
