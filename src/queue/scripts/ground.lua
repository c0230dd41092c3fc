-- The ground under every script: names of keys, the time, pieces of work and where they are.
--
-- KEYS[1]  the shard's hash of counters, `{prefix}stat`; every other key is named after it
-- ARGV[1]  the time in ms when a test decides it, else '' for the server's
-- ARGV[2]  how long a lease lasts, ms
-- ARGV[3]  how long letters and records of ended messages live, ms
-- ARGV[4]  letters kept per cause
-- A script's own arguments begin at ARGV[5].
--
-- A piece of work is a delivery, or the routing of a message (index 0). What may change of it is the
-- field `s{index}` of the message's record:
--   state|attempts|pauses|hand-outs before this place|may have been sent|deadline|place
-- States: P pending, S delivered, D dead, X expired, E (a routing) became deliveries.
-- Places: e{entry id} in the lane's stream (leased if the group has it pending, else ready),
--   d in the zset of work due later, k parked behind its destination; empty once ended.
-- A place is true at every moment between two scripts, so nothing is ever in two places.
-- A hand-out is named `{entry id}/{number}`, the server's count of hand-outs of that entry: a later one,
-- even to the same owner, has another name. Those of them that do not count are in the record's field `f{index}`:
--   entry id|how many

local STAT = KEYS[1]
local PREFIX = string.sub(STAT, 1, -5)
local LANES = PREFIX .. 'lanes'
local OWNERS = PREFIX .. 'wk'
local DEADLINES = PREFIX .. 'dl'
local GROUP = 'w'
local HOUR = 3600000

local server_time = redis.call('TIME')
local server_us = server_time[1] * 1000000 + server_time[2]
local server_ms = math.floor(server_us / 1000)
local manual = ARGV[1] ~= ''
local now = manual and tonumber(ARGV[1]) or server_ms
local now_us = manual and now * 1000 or server_us
local lease_ms, retention_ms, letter_cap = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

-- Whether a structure that somebody removed had to be made anew.
local recreated = 0

-- Texts of whole numbers. Formatting is dear, most numbers are small, and a deadline is written as often as it
-- was read.
local texts = { [0] = '0', '1', '2', '3', '4', '5', '6', '7', '8', '9' }

-- A whole number in full: Lua's own way rounds from 15 digits on.
local function whole(number)
  local text = texts[number]
  if not text then
    text = string.format('%.0f', number)
    texts[number] = text
  end
  return text
end

-- A whole number that is stored as text; nil for what is none, or is so large that no script of ours can
-- have written it.
local function natural(text)
  if type(text) == 'string' and #text <= 16 and string.match(text, '^%d+$') then return tonumber(text) end
  return nil
end

-- A moment, ms, that is stored as a score; nil for what is none. Somebody may have written any score.
local function moment(score)
  local number = tonumber(score or nil)
  if number and number >= 0 and number < 1e15 then return math.floor(number) end
  return nil
end

local function record_of(id)
  return PREFIX .. 'm:' .. id
end

local function stream_of(lane)
  if lane == 'in' then return PREFIX .. 'in' end
  return PREFIX .. 'rdy:' .. lane
end

local function due_of(lane)
  return PREFIX .. 'due:' .. lane
end

local function park_of(lane)
  return PREFIX .. 'park:' .. lane
end

local function wake_of(lane)
  return PREFIX .. 'wake:' .. lane
end

local function held_of(lane)
  return PREFIX .. 'held:' .. lane
end

local function letters_of(cause)
  return PREFIX .. 'dead:' .. cause
end

-- Sets fields of a hash, however many: a call takes only so many arguments.
local function set_fields(key, fields)
  for from = 1, #fields, 500 do
    redis.call('HSET', key, unpack(fields, from, math.min(#fields, from + 499)))
  end
end

local function is_error(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- What a read answers; nil where something of another type stands.
local function look(...)
  local reply = redis.pcall(...)
  if is_error(reply) then return nil end
  return reply
end

-- Adds to a count in the books. One that somebody made unreadable begins anew, for the audit to tell.
local function tally(field, by)
  if is_error(redis.pcall('HINCRBY', STAT, field, by)) then redis.call('HSET', STAT, field, math.max(0, by)) end
end

-- A count in the books; 0 for what is none.
local function booked(field)
  local text = look('HGET', STAT, field) or ''
  return natural(text) or -(natural(string.match(text, '^%-(%d+)$')) or 0)
end

-- When the books were opened, in the server's microseconds: a store that was emptied, or that another took
-- the place of, has another birth. Empty if somebody put something else in the place of the books.
local function birth()
  local clock = redis.call('TIME')
  redis.pcall('HSETNX', STAT, 'born', clock[1] .. string.format('%06d', clock[2]))
  return look('HGET', STAT, 'born') or ''
end

-- Counts of this call that are added to the books at its end.
local tallies = {}

-- The same as `tally`, at the end of the call: many become one command.
local function tally_later(field, by)
  tallies[field] = (tallies[field] or 0) + by
end

local function add_tallies()
  for field, by in pairs(tallies) do tally(field, by) end
  tallies = {}
end

-- Deadlines that are listed at the end of the call: scores and message ids.
local listed = {}

local function list_deadline_later(id, deadline)
  listed[#listed + 1] = whole(deadline)
  listed[#listed + 1] = id
end

-- Lists them. `how` is a word of ZADD, or none.
local function list_deadlines(how)
  for from = 1, #listed, 500 do
    local some = { unpack(listed, from, math.min(#listed, from + 499)) }
    if how then table.insert(some, 1, how) end
    redis.call('ZADD', DEADLINES, unpack(some))
  end
  listed = {}
end

-- Notes in the books that something was found that belongs to no work, and was removed.
local function count_orphan()
  tally('orphans', 1)
end

-- Work may have lost its place: housekeeping looks through the records of all that is unfinished.
local function lose_track()
  redis.call('HSET', STAT, 'mend', 0, 'mending', redis.call('ZCARD', DEADLINES))
  recreated = 1
end

-- Moves a key of another type than ours out of the way, where what it holds can be looked at for as long
-- as letters can.
local function set_aside(key)
  local aside = PREFIX .. 'aside:' .. string.sub(key, #PREFIX + 1)
  redis.call('RENAME', key, aside)
  redis.call('PEXPIRE', aside, whole(retention_ms))
end

-- Sees to it that nothing of another type stands in the place of a structure, so that no command on it
-- can fail. Returns whether something did.
local function secure(key, kind)
  local found = redis.call('TYPE', key).ok
  if found == kind or found == 'none' then return false end
  set_aside(key)
  return true
end

if not READ_ONLY then
  local was_lost = secure(STAT, 'hash')
  was_lost = secure(LANES, 'set') or was_lost
  was_lost = secure(DEADLINES, 'zset') or was_lost
  was_lost = secure(OWNERS, 'zset') or was_lost
  if was_lost then
    lose_track()
    count_orphan()
  end
end

-- The same for the structures of a lane, once in a script.
local secured = {}
local function secure_lane(lane)
  if READ_ONLY or secured[lane] then return end
  secured[lane] = true
  local was_lost = secure(stream_of(lane), 'stream')
  for _, key in ipairs({ due_of(lane), park_of(lane), wake_of(lane), held_of(lane) }) do
    was_lost = secure(key, 'zset') or was_lost
  end
  if was_lost then
    lose_track()
    count_orphan()
  end
end

-- Whether a text is the id of a message, as the domain type would take it.
local function is_message_id(text)
  if string.match(text, '^[SM]M%x+$') then return #text == 34 end
  local source, own = string.match(text, '^([a-z0-9%-]+):([!-~]+)$')
  return source ~= nil and #source <= 32 and #own <= 128
end

-- `{id}|{index}`, the name of a piece in the zsets.
local function member_of(piece)
  return piece.id .. '|' .. piece.index
end

-- The index of a piece as text; nil for what is none.
local function read_index(text)
  local index = natural(text)
  return index and index <= 65535 and index or nil
end

local function read_member(member)
  local id, index = string.match(member, '^(.+)|(%d+)$')
  index = read_index(index)
  if not index then return nil end
  return id, index
end

-- The name of a piece in the park: sorted, it is by destination and then by deadline.
local function parked_member_of(piece)
  return string.format('%s|%015.0f|%s|%d', piece.destination, piece.deadline, piece.id, piece.index)
end

local function read_parked_member(member)
  local id, index = string.match(member, '^[^|]*|%d+|(.+)|(%d+)$')
  index = read_index(index)
  if not index then return nil end
  return id, index
end

-- The members of one destination lie between these two.
local function park_range(destination)
  return '[' .. destination .. '|', '(' .. destination .. '}'
end

-- What the state of pending work begins with to which nothing has happened yet: its deadline and its place follow.
local FRESH = 'P|0|0|0|0|'
local FRESH_STATE = '^P|0|0|0|0|(%d+)|([%w%-]*)$'

local function read_state(text)
  local fresh_until, fresh_at = string.match(text, FRESH_STATE)
  if fresh_until and #fresh_until <= 15 then
    local moment_of_end = tonumber(fresh_until)
    texts[moment_of_end] = fresh_until
    return {
      state = 'P', attempts = 0, pauses = 0, handed = 0, maybe = '0', deadline = moment_of_end, place = fresh_at,
    }
  end
  local state, attempts, pauses, handed, maybe, deadline, place =
    string.match(text, '^([PSDXE])|(%d+)|(%d+)|(%d+)|([01])|(%d+)|([%w%-]*)$')
  if not state or #attempts > 9 or #pauses > 9 or #handed > 9 or #deadline > 15 then return nil end
  local moment_of_end = tonumber(deadline)
  texts[moment_of_end] = deadline
  return {
    state = state,
    attempts = tonumber(attempts),
    pauses = tonumber(pauses),
    handed = tonumber(handed),
    maybe = maybe,
    deadline = moment_of_end,
    place = place,
  }
end

-- Whether a text is the name of a lane.
local function is_lane(text)
  return #text <= 32 and string.match(text, '^[a-z0-9%-]+$') ~= nil
end

-- The lane, the destination and the label of a delivery; nil for what no script of ours can have written.
local function read_route(text)
  local lane, destination, label = string.match(text or '', '^([^|]+)|([^|]*)|(.*)$')
  if not lane or not is_lane(lane) then return nil end
  return lane, destination, label
end

-- Reads a piece: the piece; nil if there is none; nil and true if what is there cannot be read. What the
-- names that follow stand for in its record is in its `more`, in that order and from the third on: one command
-- reads it all.
local function read_piece(id, index, ...)
  local fields = redis.pcall('HMGET', record_of(id), 's' .. index, 'r' .. index, ...)
  if is_error(fields) then return nil, true end
  if not fields[1] then return nil end
  local piece = read_state(fields[1])
  if not piece then return nil, true end
  piece.id, piece.index, piece.lane, piece.destination = id, index, 'in', ''
  piece.more = fields
  if index > 0 then
    local lane, destination = read_route(fields[2])
    if not lane or lane == 'in' then return nil, true end
    piece.lane, piece.destination = lane, destination
  end
  secure_lane(piece.lane)
  return piece
end

-- Whether a message has a record. What is no hash is none, and is moved out of the way.
local function has_record(id)
  local record = record_of(id)
  local found = redis.call('TYPE', record).ok
  if found == 'hash' then return true end
  if found ~= 'none' and not READ_ONLY then
    set_aside(record)
    count_orphan()
  end
  return false
end

-- What the field of a piece says.
local function state_of(piece)
  return piece.state .. '|' .. whole(piece.attempts) .. '|' .. whole(piece.pauses) .. '|' .. whole(piece.handed)
    .. '|' .. piece.maybe .. '|' .. whole(piece.deadline) .. '|' .. piece.place
end

local function write_piece(piece)
  redis.call('HSET', record_of(piece.id), 's' .. piece.index, state_of(piece))
end

-- Whether the work is pending and, as far as its record says, in this entry.
local function is_at(piece, entry)
  return piece ~= nil and piece.state == 'P' and piece.place == 'e' .. entry
end

-- The lease of an entry: {entry, owner, idle ms, hand-outs}, nil if it has none. With `owner`, only if
-- it is that owner's.
local function lease_of(lane, entry, owner)
  local reply
  if owner then
    reply = redis.pcall('XPENDING', stream_of(lane), GROUP, entry, entry, 1, owner)
  else
    reply = redis.pcall('XPENDING', stream_of(lane), GROUP, entry, entry, 1)
  end
  if is_error(reply) then return nil end
  return reply[1]
end

-- The name of a hand-out.
local function lease_name(entry, number)
  return entry .. '/' .. whole(number)
end

-- How many of an entry's hand-outs do not count.
local function excused_at(piece, entry)
  local text = redis.call('HGET', record_of(piece.id), 'f' .. piece.index) or ''
  local at, number = string.match(text, '^(%d+%-%d+)|(%d+)$')
  return at == entry and natural(number) or 0
end

local function excuse(piece, entry, number)
  redis.call('HSET', record_of(piece.id), 'f' .. piece.index, entry .. '|' .. whole(number))
end

-- The entry and the number of a hand-out that is still the owner's, nil if it is not.
local function entry_held_by(owner, lane, name)
  local entry, number = string.match(name, '^(%d+%-%d+)/(%d+)$')
  local lease = entry and lease_of(lane, entry, owner)
  if lease and lease[4] == tonumber(number) then return entry, lease[4] end
  return nil
end

local enlisted = {}

-- Makes a lane known, and its group with its first work; once in a script.
local function enlist(lane)
  if enlisted[lane] then return end
  enlisted[lane] = true
  secure_lane(lane)
  if redis.call('SADD', LANES, lane) == 1 then
    -- An error means that there is one.
    redis.pcall('XGROUP', 'CREATE', stream_of(lane), GROUP, '0', 'MKSTREAM')
  end
end

-- Runs a command on the lane's group; makes the group anew where somebody removed it, from the
-- beginning of the stream, so that what is still there is handed out. false if the lane never had work.
local function with_group(lane, ...)
  local reply = redis.pcall(...)
  if not is_error(reply) then return reply end
  if not string.find(reply.err, 'NOGROUP', 1, true) then return error(reply) end
  local stream = stream_of(lane)
  local is_there = redis.call('EXISTS', stream) == 1
  if redis.call('SISMEMBER', LANES, lane) == 0 and not is_there then return false end
  -- The entries are lost, the records are not.
  if not is_there then lose_track() end
  redis.call('SADD', LANES, lane)
  redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
  recreated = 1
  return redis.call(...)
end

-- The id up to which the group has handed out, nil without a group.
local function last_delivered(lane)
  local groups = redis.pcall('XINFO', 'GROUPS', stream_of(lane))
  if is_error(groups) then return nil end
  for _, group in ipairs(groups) do
    local last, is_ours = nil, false
    for field = 1, #group, 2 do
      if group[field] == 'name' then is_ours = group[field + 1] == GROUP end
      if group[field] == 'last-delivered-id' then last = group[field + 1] end
    end
    if is_ours then return last end
  end
  return nil
end

-- The first entry after another one, {entry id, fields}; nil if there is none.
local function entry_after(lane, entry)
  local found = look('XRANGE', stream_of(lane), '(' .. entry, '+', 'COUNT', 1)
  return found and found[1] or nil
end

-- Leases count from a test's time too. Without its own time there is nothing to do: the server has set
-- the right one.
local function date_leases(lane, owner, entries)
  if not manual or #entries == 0 then return end
  local command = { 'XCLAIM', stream_of(lane), GROUP, owner, 0 }
  for _, entry in ipairs(entries) do command[#command + 1] = entry end
  command[#command + 1] = 'TIME'
  command[#command + 1] = whole(now)
  command[#command + 1] = 'JUSTID'
  redis.call(unpack(command))
end

-- Takes an entry out of its lane. What is no entry id, as a record may name it, is in none.
local function drop_entry(lane, entry)
  local stream = stream_of(lane)
  redis.pcall('XACK', stream, GROUP, entry)
  redis.pcall('XDEL', stream, entry)
end

-- Entries that leave their lanes at the end of the call, by lane.
local leaving = {}

-- Takes the entry of a piece out of its lane at the end of the call: many become one command. Whatever is
-- no entry id would make that fail for all, so it is tried at once and alone.
local function drop_entry_later(lane, entry)
  local ms, seq = string.match(entry, '^(%d+)%-(%d+)$')
  if not ms or #ms > 19 or #seq > 19 then return drop_entry(lane, entry) end
  leaving[lane] = leaving[lane] or {}
  table.insert(leaving[lane], entry)
end

local function drop_entries()
  for lane, entries in pairs(leaving) do
    local stream = stream_of(lane)
    for from = 1, #entries, 500 do
      local to = math.min(#entries, from + 499)
      redis.pcall('XACK', stream, GROUP, unpack(entries, from, to))
      redis.pcall('XDEL', stream, unpack(entries, from, to))
    end
  end
  leaving = {}
end

-- Adds an entry for a piece to its lane's stream: its id.
local function add_entry(piece, woken)
  local stream, entry = stream_of(piece.lane), nil
  if not manual and not woken then
    entry = redis.pcall('XADD', stream, '*', 'm', piece.id, 'i', whole(piece.index))
    if type(entry) == 'string' then return entry end
  end
  local fields = { 'm', piece.id, 'i', whole(piece.index) }
  if woken then
    fields[5], fields[6] = 'w', '1'
  end
  -- A test's time may lie behind the last entry's; the server's own id fits.
  if manual then entry = redis.pcall('XADD', stream, whole(now) .. '-*', unpack(fields)) end
  if type(entry) ~= 'string' then entry = redis.pcall('XADD', stream, '*', unpack(fields)) end
  if type(entry) ~= 'string' then
    -- Somebody's entry has the last id there is, after which there can be none.
    set_aside(stream)
    redis.call('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    lose_track()
    entry = redis.call('XADD', stream, '*', unpack(fields))
  end
  return entry
end

-- Gives the entry of a pending piece back at the end of the call, if it has one.
local function leave_entry_later(piece)
  local entry = string.match(piece.place, '^e(.+)$')
  if not entry then return false end
  drop_entry_later(piece.lane, entry)
  piece.place = ''
  return true
end

-- Puts a piece at the end of its lane. `woken`: it comes from the park, so it overtakes nobody.
local function make_ready(piece, woken)
  piece.place = 'e' .. add_entry(piece, woken)
  write_piece(piece)
end

-- Takes a piece out of the place where it is; the caller writes where it is then.
local function leave_place(piece)
  local entry = string.match(piece.place, '^e(.+)$')
  if entry then
    drop_entry(piece.lane, entry)
  elseif piece.place == 'd' then
    redis.call('ZREM', due_of(piece.lane), member_of(piece))
  elseif piece.place == 'k' then
    local park = park_of(piece.lane)
    redis.call('ZREM', park, parked_member_of(piece))
    local from, to = park_range(piece.destination)
    if #redis.call('ZRANGEBYLEX', park, from, to, 'LIMIT', 0, 1) == 0 then
      redis.call('ZREM', wake_of(piece.lane), piece.destination)
    end
  end
  piece.place = ''
end

-- Parks a piece behind its destination, to be looked at again at `at` or before.
local function park(piece, at)
  redis.call('ZADD', park_of(piece.lane), 0, parked_member_of(piece))
  piece.place = 'k'
  write_piece(piece)
  local wake = wake_of(piece.lane)
  local set = moment(redis.call('ZSCORE', wake, piece.destination))
  if not set or set > at then redis.call('ZADD', wake, whole(at), piece.destination) end
end

-- Work that waits again after its deadline is housekeeping's at once.
local function tell_if_overdue(piece)
  if piece.deadline <= now then redis.call('ZADD', DEADLINES, 'LT', whole(piece.deadline), piece.id) end
end

-- A letter that can be shown: its piece, cause, and when it died; nil if there is none.
local function read_letter(id, index)
  local piece = read_piece(id, index)
  if not piece or (piece.state ~= 'D' and piece.state ~= 'X') then return nil end
  local letter = redis.call('HGET', record_of(id), 'x' .. index)
  local cause, died_at = string.match(letter or '', '^(%a+)|(%d+)$')
  died_at = natural(died_at)
  if not died_at or died_at <= now - retention_ms then return nil end
  return piece, cause, died_at
end
